"""The page's style sheet: light and dark, wide and narrow, on screen and on paper."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #1b2230; --ink-soft:
  #5a6476; --line: #e3e3e0; --accent: #b84d00; --good: #0b6b4f; --good-paper: #e2f3ec; --bad:
  #a3201d; --bad-paper: #fbe7e5; --same-paper: #eeeef0; --head: #f3f1ed; --shadow: 0 1px 2px
  #1b223014,0 6px 20px #1b22300a }
@media (prefers-color-scheme:dark) {
  :root { --paper: #12151b; --card: #1a1f28; --ink: #e9ebf0; --ink-soft: #a3adbd; --line:
    #2e3542; --accent: #ff9a4d; --good: #6fd6ae; --good-paper: #12362b; --bad: #ff9d94;
    --bad-paper: #40201f; --same-paper: #262c37; --head: #202632; --shadow: none }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55
  system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px }
header { padding-top: 44px }
h1 { font-size: clamp(28px,4.2vw,42px); line-height: 1.15; letter-spacing: -.02em; margin: .1em
  0 .35em; max-width: 24em; text-wrap: balance }
h2 { font-size: 23px; letter-spacing: -.01em; margin: 56px 0 6px }
h3 { font-size: 17px; margin: 30px 0 8px }
p { max-width: 46em; margin: .4em 0 .9em }
.kicker { color: var(--accent); font-weight: 650; margin: 0; letter-spacing: .01em }
.soft, figcaption, .note { color: var(--ink-soft) }
.lead { font-size: 17px; max-width: 50em }
td b { font-weight: 680 }
.note { font-size: 14px }
code { font: .9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; overflow-wrap: anywhere
  }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0 0; font-size: 15px }
a { color: var(--accent); text-underline-offset: 3px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit,minmax(178px,1fr)); gap: 14px;
  margin: 26px 0 18px; padding: 0; list-style: none }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding:
  14px 16px 12px; box-shadow: var(--shadow) }
.tile .name { font-size: 14px; color: var(--ink-soft); display: block }
.tile .figures { font-size: 25px; font-weight: 680; letter-spacing: -.02em; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.tile .before { font-weight: 450; color: var(--ink-soft); font-size: 18px }
.tile .change { display: block; font-size: 13.5px; margin-top: 2px }
.good { color: var(--good) }
.bad { color: var(--bad) }
.same { color: var(--ink-soft) }
.worse { background: var(--bad-paper); border-radius: 12px; padding: 12px 18px; margin: 18px 0;
  max-width: 60em }
.worse p { margin: 0 0 4px; font-weight: 600 }
.worse ul { margin: 0; padding-left: 20px }
.missing { background: var(--same-paper); border-radius: 12px; padding: 12px 18px; margin: 18px
  0; max-width: 60em }
.missing p { margin: 0 0 4px; font-weight: 600 }
.missing ul { margin: 0; padding-left: 20px }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius:
  12px; box-shadow: var(--shadow); margin: 14px 0 }
.wide:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric:
  tabular-nums }
th, td { padding: 7px 11px; text-align: right; white-space: nowrap; vertical-align: top }
th { font-weight: 600 }
thead th { background: var(--head); font-size: 14px; vertical-align: bottom; border-bottom: 1px
  solid var(--line) }
.unit { display: block; font-weight: 400; color: var(--ink-soft); font-size: 12.5px }
.text, tbody th { text-align: left }
tbody th { font-weight: 500 }
tbody tr.first td, tbody tr.first th { border-top: 1px solid var(--line) }
tbody:first-of-type tr.first:first-child td, tbody:first-of-type tr.first:first-child th {
  border-top: 0 }
td .range { display: block; font-size: 12px; color: var(--ink-soft) }
td .chip { margin-right: 8px }
.chip { display: inline-block; font-size: 12.5px; line-height: 1.5; border-radius: 20px;
  padding: 0 7px; font-weight: 600; white-space: nowrap }
.chip.good { background: var(--good-paper) }
.chip.bad { background: var(--bad-paper) }
.chip.same { background: var(--same-paper); font-weight: 450 }
.chip.unsure { outline: 1.5px dashed currentColor; outline-offset: -1px; background: none }
.variant { display: inline-block; width: 18px; height: 0; border-top: 3px solid; vertical-align:
  middle; margin-right: 8px }
.variant.baseline { border-top-style: dashed; border-color: #7486a8 }
.variant.ood_trained { border-color: #e06c00 }
.charts { display: grid; grid-template-columns: repeat(auto-fill,minmax(250px,1fr)); gap: 14px;
  margin: 10px 0 8px }
figure { margin: 0 }
.charts figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 12px 12px 6px; box-shadow: var(--shadow) }
.charts figcaption { font-size: 14px; font-weight: 600; color: var(--ink); padding: 0 4px 4px }
.large { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px;
  margin: 12px 0; max-width: 820px; box-shadow: var(--shadow) }
.chart { display: block; width: 100%; height: auto }
.chart * { stroke-linejoin: round; stroke-linecap: butt }
.scene { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 12px 14px 14px; margin: 14px 0; box-shadow: var(--shadow) }
.scene h4 { margin: 0 0 8px; font-size: 14px; font-weight: 500; color: var(--ink-soft);
  overflow-wrap: anywhere }
.panels { display: grid; gap: 10px; grid-template-columns: calc((100% - 30px) / 4) minmax(0, 1fr) }
.few .panels { grid-template-columns: calc((100% - 40px) / 5 * 2 + 10px) minmax(0, 1fr) }
.truth, .strips { display: grid; gap: 10px; align-content: start }
.few .truth { grid-template-columns: repeat(2, minmax(0, 1fr)) }
.strip { display: grid; gap: 10px; grid-template-columns: repeat(3, minmax(0, 1fr)) }
.panels img { display: block; width: 100%; height: auto; border-radius: 6px; background: #000 }
.panels figcaption { font-size: 12.5px; line-height: 1.35; padding: 4px 2px 0;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.panels figcaption b { display: block; font-weight: 600; color: var(--ink) }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; font-size: 14px; color:
  var(--ink-soft); margin: 6px 0 0; padding: 0; list-style: none }
.swatch { display: inline-block; width: 15px; height: 15px; border-radius: 4px; vertical-align:
  -2px; margin-right: 7px; border: 1px solid #8886 }
.ramp { display: inline-block; width: 84px; height: 13px; border-radius: 4px; vertical-align:
  -2px; margin: 0 8px; background:
  linear-gradient(90deg,#000004,#420a68,#932667,#dd513a,#fca50a,#fcffa4) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 22px; margin: 12px 0 }
dt { font-weight: 600 }
dd { margin: 0; max-width: 46em }
details summary { cursor: pointer; font-weight: 600; margin-top: 10px }
footer { margin-top: 64px; padding-top: 18px; padding-bottom: 44px; font-size: 14px; color:
  var(--ink-soft) }
footer dl { font-size: 14px; border-top: 1px solid var(--line); padding-top: 18px }
.aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap }
@media (max-width:640px) {
  main, header, footer { padding-left: 16px; padding-right: 16px }
  header { padding-top: 28px }
  h2 { margin-top: 44px }
  .panels, .few .panels { grid-template-columns: minmax(0, 1fr) }
  .truth, .strip { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .strip figure:nth-child(3) { grid-column: 1 / -1 }
  .panels, .truth, .strips, .strip { gap: 6px }
  .panels figcaption { font-size: 11.5px }
  dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: 10px }
  .tiles { grid-template-columns: repeat(2,1fr); gap: 10px }
  .tile { padding: 12px }
  .tile .figures { font-size: 20px }
  .tile .before { font-size: 15px }
  th, td { padding: 6px 9px }
}
@media print {
  body { background: #fff }
  .wide, .scene, .tile, .charts figure { box-shadow: none; break-inside: avoid }
  nav { display: none }
}
"""
