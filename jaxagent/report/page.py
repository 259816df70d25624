"""The frame of a report: its style, and the page that sections are put into."""

from string import Template

CSS = """
:root { color-scheme: light dark; --ink: #1f2a30; --paper: #f6f7f5; --card: #ffffff;
  --muted: #5d6a72; --line: #dde2e4; --note: #fff4dc; --note-ink: #5c4300; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaec; --paper: #14191d; --card: #1d2429;
  --muted: #9aa7af; --line: #343d44; --note: #3a3016; --note-ink: #f3dfae; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px clamp(12px, 3vw, 32px) 48px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 32px 0 10px; padding-bottom: 4px;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 0.95rem; margin: 16px 0 6px; }
p { margin: 6px 0; }
.headline { font-size: 1.1rem; }
.muted, figcaption { color: var(--muted); font-size: 0.85rem; }
.absent { color: var(--muted); font-style: italic; }
.note { background: var(--note); color: var(--note-ink); padding: 6px 10px; border-radius: 6px;
  overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 10px; color: #fff;
  font-size: 0.75rem; font-weight: 650; letter-spacing: 0.03em; white-space: nowrap; }
.pass { background: #1a7f4b; } .directional { background: #0067a8; } .fail { background: #c0341d; }
.inconclusive { background: #f0b429; color: #2b2000; } .void { background: #6b757c; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; margin: 8px 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { padding: 6px 12px; text-align: left; vertical-align: top; overflow-wrap: break-word; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
.prose { min-width: 12rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.interval { color: var(--muted); font-size: 0.85em; white-space: nowrap; }
.wide { grid-column: 1 / -1; }
.grid { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0; min-width: 0; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
.card figcaption { color: #5d6a72; }
.card svg { display: block; margin: 0 auto; }
.pictures { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 155px), 1fr)); }
.pictures img { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 8px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--muted); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px;
  overflow-x: auto; font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
@media (max-width: 640px) {
  thead { display: none; }
  tbody tr { display: block; padding: 6px 0; }
  td, td.number { display: block; text-align: left; padding: 2px 12px; }
  td[data-name]::before { content: attr(data-name) ": "; color: var(--muted); }
  .prose { display: inline; } .muted.prose { display: block; } }
@media print { details { display: block; } .scroll { overflow: visible; } }
"""

# The policy makes the promise enforceable: the browser refuses anything from outside the file.
PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$css</style>
</head>
<body><main>
<header>$header</header>
$body
</main></body>
</html>
"""
)
