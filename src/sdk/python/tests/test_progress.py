import io

from oci_node.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def moved(out: io.StringIO) -> str:
    progress = Progress(out=out)
    progress.step("image: resolving")
    progress.step("image: resolving")
    progress.part("sha256:aa", 1 << 20, 4 << 20)
    progress.part("sha256:bb", 0, 4 << 20)
    progress.part("sha256:aa", 4 << 20, 4 << 20)
    progress.part("sha256:aa", 4 << 20, 4 << 20)
    progress.step("image: built\x1b[2J")
    progress.end()
    return out.getvalue()


def test_elsewhere_than_on_a_terminal_there_is_a_line_for_what_is_done() -> None:
    assert moved(io.StringIO()) == "image: resolving\nsha256:aa: 4.0 MiB\nimage: built\\u{1b}[2J\n"


def test_on_a_terminal_one_line_is_drawn_again_and_gone_at_the_end() -> None:
    shown = moved(Terminal())
    assert shown.startswith("image: resolving\n\r\x1b[K")
    assert "1.0 MiB of 4.0 MiB, 0 of 1 layers" in shown
    assert shown.endswith("\r\x1b[Kimage: built\\u{1b}[2J\n")


def test_a_quiet_one_says_nothing() -> None:
    out = io.StringIO()
    progress = Progress(quiet=True, out=out)
    progress.step("x")
    progress.part("y", 1, 1)
    assert out.getvalue() == ""
