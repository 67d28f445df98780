"""The Java side of Spark: runtime, options, jars, class archive."""
