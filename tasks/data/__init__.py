"""From a source to features: deal, collect, validate, features, and the synthetic cohort."""
