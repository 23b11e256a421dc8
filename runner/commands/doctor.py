"""The command doctor."""

from __future__ import annotations

from pathlib import Path

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.errors import PlaybookFaulty, RunRefused
from runner.target.workplace import Connected, Workplace, connected

NOT_AS_DECLARED = 3


@click.command("doctor", short_help="Compare the target with a shape, playbook or run")
@click.argument("subject", required=False, metavar="[SHAPE|PLAYBOOK|RUN]", shell_complete=complete.playbooks)
@click.option(
    "-i", "--input", "given", multiple=True, metavar="KEY=VALUE", help="An input of the playbook; repeatable."
)
@click.option("--write", metavar="NAME", help="Instead, write the target's tables as a shape of this name.")
@click.option("--tables", metavar="A,B,…", help="With --write: the tables.")
@click.option(
    "--from", "base", metavar="SHAPE", help="With --write: only what differs from this shape of the file SHAPE."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="With --write: a new file to write to."
)
@options.target
@options.runs
@options.as_json
def doctor_command(  # noqa: PLR0913 - one for each option
    *,
    subject: str | None,
    given: tuple[str, ...],
    write: str | None,
    tables: str | None,
    base: str | None,
    output: Path | None,
    target: str | None,
    runs: Path | None,
    as_json: bool,
) -> int:
    """Say how the target stands: whole, absent, half, more than declared, or still being changed, and by whom.

    SHAPE is the name of a declared shape or a file of shapes; of a PLAYBOOK its shapes are compared and its steps verified; of a
    RUN its steps. Without any, it looks for what broken-off changes leave behind. Each line names its evidence in the catalogue;
    no version number is trusted. It only reads. The exit code is 0 where all is as declared, else 3.

    \b
    runbook doctor v16 -t staging
    runbook doctor adr007-phase3 -t staging --json
    runbook doctor -t staging
    runbook doctor --write v15 --tables orders,customers -t staging -o shapes.yaml
    """
    place = Workplace(target, runs)
    if write is not None:
        _write(place, subject, write=write, tables=tables or "", base=base, output=output)
        return 0
    if tables or base or output:
        raise click.UsageError("--tables, --from and -o go with --write")
    from runner.doctor import card
    from runner.doctor.diagnosis import diagnose
    from runner.doctor.subject import subject as find
    from runner.run.execute import masks_of

    asked = find(subject, place, options.inputs(given, None))
    place = _place(place, subject) if asked.run is not None else place
    masks = masks_of(asked.playbook) if asked.playbook is not None else None
    with connected(place, schema=asked.schema, path=asked.path, masks=masks) as there:
        found = diagnose(there, asked)
        if as_json:
            options.print_json(card.document(found, there.masks))
        else:
            card.show(found, there.masks)
    return 0 if found.well else NOT_AS_DECLARED


def _place(place: Workplace, run: str | None) -> Workplace:
    from runner.commands.look import place_of_run

    return place_of_run(str(run), target=place.target, runs=place.runs)


def _write(
    place: Workplace, file: str | None, *, write: str, tables: str, base: str | None, output: Path | None
) -> None:
    import re

    from runner.playbook.model import ID

    names = [one.strip() for one in tables.split(",") if one.strip()]
    if not names:
        raise click.UsageError("--write needs --tables: the tables whose shape is written")
    if not re.match(ID, write):
        raise click.UsageError(f"cannot use the name {write!r}: small letters, digits and _, beginning with a letter")
    if output is not None and output.exists():
        raise RunRefused(
            f"cannot write {output}: it is there already", then="give another file, or compare: leave -o away"
        )
    with connected(place) as there:
        text = _shape_text(there, names, write=write, file=file, base=base)
    if output is None:
        terminal.hand_over(text)
        return
    output.write_text(text, encoding="utf-8")
    terminal.say(f"wrote {output}: the shape {write} of {len(names)} tables")
    terminal.labelled("next", f"runbook doctor {output} -t {place.target or 'TARGET'}")


def _shape_text(there: Connected, names: list[str], *, write: str, file: str | None, base: str | None) -> str:
    from runner.playbook.find import find_playbook
    from runner.playbook.shape_files import read_shapes
    from steps.catalog import shape_write
    from steps.contract import Refused

    dialect = there.database.dialect
    try:
        with there.database.look() as look:
            spec = shape_write.read(look, names)
    except Refused as why:
        raise RunRefused(
            str(why), state="nothing was written", then="runbook doctor -t TARGET shows what was left behind"
        ) from why
    if base is not None:
        if file is None:
            raise click.UsageError("--from needs the file that declares this shape, as first argument")
        known = read_shapes(find_playbook(file, Path.cwd())).shapes
        if base not in known:
            raise PlaybookFaulty(f"cannot find the shape {base!r} in {file}: it has {', '.join(known) or 'none'}")
        spec = shape_write.since(known[base].on(dialect), spec)
    return shape_write.text(write, spec, dialect)
