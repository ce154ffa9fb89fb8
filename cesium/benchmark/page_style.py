"""The style sheet of the HTML report: light and dark as the reader's system has it, and phones.


The engines' colours are apart in lightness, not only in hue, so that they differ for every kind of;
sight; cesium's is the first.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --faint: #5c6670; --rule: #d5dae0;
  --ahead: #0b62c4; --behind: #b8480a; --level: #6b747d; --spread: #1b1f24; --error: #a40e26;
  --engine-0: #0b62c4; --engine-1: #d98200; --engine-2: #00856a; --engine-3: #b0408a;
  --engine-4: #6fa8dc; --engine-5: #7a5230; --engine-6: #8a8f1c; --engine-7: #6b747d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1d2125; --ink: #e6e9ec; --faint: #9aa4ae; --rule: #363d44;
    --ahead: #58a6ff; --behind: #ff9b54; --level: #9aa4ae; --spread: #e6e9ec; --error: #ff8a94;
    --engine-0: #4c9bff; --engine-1: #f0a83c; --engine-2: #35b898; --engine-3: #e07ab8;
    --engine-4: #a9cdf0; --engine-5: #b98a62; --engine-6: #c3c855; --engine-7: #9aa4ae;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem clamp(0.75rem, 3vw, 2.5rem) 3rem; max-width: 1400px;
  background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.7rem; margin: 0.5rem 0 0.2rem; }
h2 {
  font-size: 1.25rem; margin: 2.2rem 0 0.3rem; padding-top: 0.6rem;
  border-top: 1px solid var(--rule);
}
h3 { font-size: 1rem; margin: 0; }
p { margin: 0.3rem 0 0.8rem; max-width: 75ch; }
.faint, .data { color: var(--faint); }
.data { font-size: 0.85rem; margin: 0 0 0.5rem; }
.warning {
  border-left: 4px solid var(--behind); padding: 0.4rem 0.8rem; background: var(--card);
}
nav a { margin-right: 1rem; }
a { color: var(--ahead); }
.cards {
  display: grid; gap: 0.8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr));
}
.card {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 0.7rem 0.9rem; min-width: 0;
}
.row {
  display: grid; grid-template-columns: 7.5rem minmax(4rem, 1fr) 6.6rem; gap: 0.5rem;
  align-items: center; padding: 1px 0;
}
.wide .row { grid-template-columns: minmax(9rem, 22rem) minmax(5rem, 1fr) minmax(8.5rem, 17rem); }
.room .row { grid-template-columns: 6rem minmax(3rem, 1fr) 11.5rem; }
.row.wordy { grid-template-columns: 7.5rem 1fr; }
.wide .row.wordy { grid-template-columns: minmax(9rem, 22rem) 1fr; }
.label, .figure { overflow-wrap: anywhere; font-size: 0.88rem; line-height: 1.25; }
.figure { font-variant-numeric: tabular-nums; }
.row.own .label { font-weight: 650; }
.row.failed .figure { color: var(--error); }
.track { position: relative; height: 1rem; }
.bar {
  position: absolute; left: 0; top: 0.1rem; bottom: 0.1rem; min-width: 2px;
  background: var(--colour); border-radius: 2px;
}
.row.bound .bar {
  background: repeating-linear-gradient(135deg, var(--colour) 0 4px, transparent 4px 8px);
  border: 1px solid var(--colour);
}
.spread { position: absolute; top: 50%; height: 0; border-top: 1.5px solid var(--spread); }
.spread::before, .spread::after {
  content: ""; position: absolute; top: -0.27rem; height: 0.45rem;
  border-left: 1.5px solid var(--spread);
}
.spread::before { left: 0; } .spread::after { right: 0; }
.whole { position: absolute; top: -0.1rem; bottom: -0.1rem; border-left: 1px solid var(--ink); }
.mark { position: absolute; top: -0.1rem; bottom: -0.1rem; border-left: 3px dotted var(--ink); }
.standing .track {
  background: linear-gradient(var(--rule), var(--rule)) center/1px 100% no-repeat;
}
.beam { position: absolute; top: 0.1rem; bottom: 0.1rem; min-width: 3px; border-radius: 2px; }
.better .beam { background: var(--ahead); } .worse .beam { background: var(--behind); }
.same .beam, .unclear .beam, .unknown .beam { background: var(--level); }
.better .figure { color: var(--ahead); } .worse .figure { color: var(--behind); }
.scale { position: relative; height: 1.3rem; font-size: 0.78rem; color: var(--faint); }
.scale > span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.scale > span:first-child { transform: none; }
.scale > span:last-child { transform: translateX(-100%); }
.plot { display: grid; grid-template-columns: 4.3rem 1fr; margin-top: 0.3rem; }
.plot .axis-name { grid-column: 1 / -1; font-size: 0.78rem; color: var(--faint); }
.plot .axis-name { margin-bottom: 0.5rem; }
.plot .axis-name.below { text-align: right; }
.canvas {
  height: 13rem; border-left: 1px solid var(--faint); border-bottom: 1px solid var(--faint);
}
.canvas svg { width: 100%; height: 100%; display: block; overflow: visible; }
.up, .across { position: relative; font-size: 0.78rem; color: var(--faint); }
.up span { position: absolute; right: 0.4rem; transform: translateY(50%); white-space: nowrap; }
.across { grid-column: 2; height: 1.4rem; }
.across span {
  position: absolute; top: 0.1rem; transform: translateX(-50%); white-space: nowrap;
}
.across span:last-child { transform: translateX(-85%); }
.grid { stroke: var(--rule); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dot { stroke-width: 8; stroke-linecap: round; }
.legend {
  grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.85rem;
}
.key { width: 26px; height: 10px; margin-right: 0.35rem; }
.stack > *, .columns > * { margin-bottom: 0.8rem; }
.columns { columns: 420px 3; column-gap: 0.8rem; }
.columns > * { break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td {
  text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top;
}
thead th { color: var(--faint); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
td { overflow-wrap: anywhere; }
td.number, td:first-child { overflow-wrap: normal; }
details { margin-top: 0.5rem; }
summary { cursor: pointer; color: var(--faint); font-size: 0.88rem; }
@media (max-width: 560px) {
  .row { grid-template-columns: 4.8rem minmax(3rem, 1fr) 6.6rem; }
  .room .row { grid-template-columns: 4.8rem minmax(2rem, 1fr) 11rem; }
  .scale .word { display: none; }
  .row.wordy { grid-template-columns: 4.8rem 1fr; }
  .wide .row { grid-template-columns: 1fr 1fr; row-gap: 0; padding: 0.25rem 0; }
  .wide .row .label { grid-column: 1 / -1; }
  .wide .row.wordy { grid-template-columns: 1fr; }
}
@media print { body { max-width: none; } .card { break-inside: avoid; } }
"""
