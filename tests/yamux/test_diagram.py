"""The picture in the documentation is made from the table."""

from pathlib import Path

from tunnel.yamux.states import TRANSITIONS, State

PAGE = Path(__file__).parents[2] / "docs/yamux.md"


def diagram() -> str:
    """The table as a Mermaid state diagram, arrows between the same states joined."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, what), following in TRANSITIONS.items():
        arrows.setdefault((state, following), []).append(what.value)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> OPEN"]
    for (state, following), inputs in arrows.items():
        lines.append(f"    {state.name} --> {following.name}: {', '.join(inputs)}")
    lines += ["    CLOSED --> [*]", "    RESET --> [*]", "```"]
    return "\n".join(lines)


def test_the_page_shows_the_table():
    page = PAGE.read_text()
    begin, end = "<!-- states: begin -->\n", "\n<!-- states: end -->"
    assert page[page.index(begin) + len(begin) : page.index(end)] == diagram(), diagram()
