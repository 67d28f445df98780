"""The model card of a run, in the form of CHAI's Applied Model Card.

Coalition for Health AI, Applied Model Card (2024): identity, release, intended use and warnings,
training data and process, key metrics (usefulness, fairness, safety), resources. What a run cannot
know is said to be unknown.
"""

from __future__ import annotations

from pathlib import Path

from tasks.evaluate.report.report import template_environment
from tasks.evaluate.report.wording import caveats
from tasks.evaluate.results import Comparison
from tasks.files import write_atomically
from tasks.run.step import Context


def write_card(context: Context, comparison: Comparison) -> Path:
    """Render and write ``files/evaluate/model_card.md``.

    Args:
        context: The run.
        comparison: Its results.

    Returns:
        The file.
    """
    from tasks import __version__

    # Markdown, not HTML: escaping would spoil it, and its readers escape.
    environment = template_environment("undefined", autoescape=False)
    environment.filters |= {
        "ci": lambda value: "" if value is None else f" ({value[0]:.3f} to {value[1]:.3f})",
    }
    text = environment.get_template("model_card.md.j2").render(
        study=context.study,
        plan=context.plan,
        c=comparison,
        caveats=caveats(context.study, comparison),
        version=__version__,
    )
    path = context.run.folder("evaluate") / "model_card.md"
    write_atomically(path, text.encode())
    return path
