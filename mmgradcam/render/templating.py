"""The templates that pages are made of: one look, all values escaped."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmgradcam.errors import unicode_text

if TYPE_CHECKING:
    import jinja2


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of `mmgradcam/render/templates`; a template of one's own extends their `base.html`.

    Every value is escaped, whatever a template's name ends in, and a value that is not given is an error.

    >>> environment().from_string("<p>{{ label }}</p>").render(label="<b>")
    '<p>&lt;b&gt;</p>'
    """
    import jinja2

    loader = jinja2.PackageLoader("mmgradcam.render")
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """A self-contained HTML page that can be written to any file.

    Args:
        template: file name of a template, such as "explanation.html".
        values: what it shows, by name; `title` is any page's.
    """
    return unicode_text(environment().get_template(template).render(values))
