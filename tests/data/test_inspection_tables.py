"""The page of an audit."""

import re
from dataclasses import replace

from fit_jax.data.audit import audit_task
from fit_jax.data.inspection_tables import audit_page


def test_page_stands_alone_and_escapes(built):
    audit = replace(audit_task(built("demo")), notes=("<script>alert(1)</script>",))
    page = audit_page(audit, [{"focus": "none", "prompt": "a <b>", "target": "yes"}])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "marlin" in page
    assert "a &lt;b&gt; <mark>yes</mark>" in page
