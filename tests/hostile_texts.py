"""Text of the data that would be markup, a script or a terminal's command."""

TEXTS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a | b",
    "`code` **bold** _it_ [link](javascript:alert(1)) ![i](x)",
    "# heading",
    "- item",
    "a\n\n# heading\n\n<b>",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]text[/nope]",
    ":smile:",
    "\u202eabc",
)
