"""Views: pure functions from judged cells to HTML, Markdown and JSON. They measure nothing and decide nothing."""
