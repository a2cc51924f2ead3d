"""The commands `models`, `methods` and `metrics`, which list what there is."""

from __future__ import annotations


def models() -> None:
    """List the bundled models with the figures of their cards."""
    from rich.console import Console
    from rich.table import Column, Table

    from mmgradcam import checkpoints

    table = Table(Column("model", no_wrap=True), "what it does", "figures on held-out pictures")
    for name in checkpoints.names():
        config = checkpoints.config(checkpoints.folder(name))
        table.add_row(name, config["summary"], config["headline"])
    Console().print(table)


def methods() -> None:
    """List the methods that draw maps, and their settings: --method "rise(count=500)"."""
    from rich.console import Console
    from rich.table import Column, Table

    import mmgradcam.methods as room
    from mmgradcam.explaining.arguments import method_names, settings_of

    table = Table(Column("method", no_wrap=True), "what it is", "settings")
    for name in [*method_names(), "smooth"]:
        settings = ", ".join(f"{key}={one.default!r}" for key, one in settings_of(name).items())
        called = f"{name}(METHOD)" if name == "smooth" else name
        table.add_row(called, (getattr(room, name).__doc__ or "").splitlines()[0], settings)
    Console(markup=False).print(table)


def metrics() -> None:
    """List the metrics of `evaluate`: what each measures, its range, and where it is from."""
    from rich.console import Console
    from rich.table import Column, Table

    from mmgradcam.evaluation.measures import listed

    table = Table(Column("--metrics", no_wrap=True), Column("metric", no_wrap=True), "better", "range", "what it is", "source")
    for one in listed():
        table.add_row(one.chosen_by, one.name, one.better, one.interval, one.description, one.source)
    Console(markup=False).print(table)
