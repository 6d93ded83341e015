"""Writes what README.md and docs/ say of results and configuration: `make book`, or `python -m benchmarks.book`."""

from benchmarks.book.pages import ROOT, pages


def main() -> None:
    for path, text in pages():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != before:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
