// Learning and tool use over steps, one chart per figure, one line per stage or tool.
import { useContext, useState } from "preact/hooks";
import { format } from "./address";
import { type Curve, StoreContext } from "./data";
import { Trouble, useLoaded } from "./parts";
import {} from "./picture";
import { figure, spaced } from "./words";

const TITLES: Record<string, [string, string]> = {
  reward: ["Reward", "mean per trajectory"], accuracy: ["Accuracy while training", "share of sampled answers that are right"],
  tool_calls: ["Tool calls", "per trajectory"], loss: ["Loss", ""], entropy: ["Entropy", "nats per token"], grad_norm: ["Gradient norm", ""],
  masked: ["Left out of the loss", "trajectories per step"], resampled: ["Tried again", "trajectories per step"], lost: ["Lost to the infrastructure", "trajectories per step"], refilled: ["Refilled", "groups per step"],
  flat: ["Without a difference in reward", "groups per step"], token_accuracy: ["Token accuracy", "share of tokens foretold"],
  seconds: ["Time", "seconds per step"], seconds_rollout: ["Time of rollouts", "seconds per step"], forked: ["Forked", "groups per step"],
  groups: ["Groups of rollouts", "per step"], unrewarded: ["Without any reward", "trajectories per step"], fork_attempts: ["Tried to fork", "groups per step"],
  tokens_generated: ["Tokens generated", "per step"], tokens_trained: ["Tokens trained on", "per step"],
};
const NO_CURVE = ["total_steps"];
const MOST_LINES = 6;
const SMOOTH = 5; // steps of the moving mean
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [560, 240, 46, 10, 10, 26];

interface Line {
  name: string;
  steps: number[];
  values: (number | null)[];
  /** The trajectories of a step. */
  place(step: number): string;
}

export function Curves({ version, many }: { version: number; many: boolean }) {
  const store = useContext(StoreContext);
  const { value: curves, error } = useLoaded(() => store.curves(), [version]);
  if (error) return <Trouble error={error} />;
  if (!curves) return <p class="note page">Loading …</p>;
  if (!curves.length) return <p class="note page">Nothing here was trained: there are no logs, and no trajectories with steps.</p>;
  const nameOf = (curve: Curve) => (many ? `${curve.run} · ${curve.stage}` : curve.stage);
  const place = (curve: Curve) => (step: number) => format({ view: "trajectories", choices: { run: curve.run, stage: curve.stage, step: String(step) } });
  const fields = [...new Set([...Object.keys(TITLES), ...curves.flatMap((curve) => Object.keys(curve.values))])].filter((field) => !NO_CURVE.includes(field));
  const common = fields.flatMap((field) => {
    const lines = curves.filter((curve) => curve.values[field]?.some((one) => one !== null)).map((curve) => ({ name: nameOf(curve), steps: curve.steps, values: curve.values[field]!, place: place(curve) }));
    const [title, unit] = TITLES[field] ?? [spaced(field), ""];
    return lines.length ? [{ title, unit, lines }] : [];
  });
  const own = curves.flatMap((curve) => (["tools", "chains", "errors"] as const).flatMap((field) => {
    const lines = Object.entries(curve[field]).slice(0, MOST_LINES).map(([name, values]) => ({ name, steps: curve.steps, values, place: place(curve) }));
    const [title, unit] = { tools: ["Tool use", "calls per trajectory"], chains: ["Chains of tools", "share of trajectories"], errors: ["Errors", "per step"] }[field] as [string, string];
    return lines.some((line) => line.name !== "none" && line.values.some(Boolean)) ? [{ title: `${title}, ${nameOf(curve)}`, unit, lines }] : [];
  }));
  return (
    <div class="page">
      <p class="note">Thin: single steps. Thick: moving mean over {SMOOTH}. Focus a chart and use the arrow keys to read it; Enter opens the step's trajectories.</p>
      <div class="charts">{[...common, ...own].map((chart) => <Chart key={chart.title} {...chart} />)}</div>
    </div>
  );
}

function Chart({ title, unit, lines }: { title: string; unit: string; lines: Line[] }) {
  const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
  const [at, setAt] = useState<number | null>(null);
  const values = lines.flatMap((line) => line.values).filter((one): one is number => one !== null);
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  const margin = (most - least || 1) * 0.04;
  const [low, high] = [least && least - margin, most ? most + margin : least ? 0 : 1]; // where all are 0, up to 1
  const ticks = ticksOf(low, high).filter((tick) => tick >= low && tick <= high);
  const [from, to] = [steps[0]!, Math.max(steps.at(-1)!, steps[0]! + 1)];
  const x = (step: number) => LEFT + ((step - from) / (to - from)) * (WIDTH - LEFT - RIGHT);
  const y = (value: number) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (line: Line, values: (number | null)[]) =>
    values.map((value, index) => (value === null ? "" : `${index && values[index - 1] !== null ? "L" : "M"}${x(line.steps[index]!).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const step = at === null ? null : steps[at]!;
  const valueAt = (line: Line) => (step === null ? null : (line.values[line.steps.indexOf(step)] ?? null));
  const point = (event: MouseEvent) => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const wanted = from + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (to - from);
    setAt(steps.reduce((best, one, index) => (Math.abs(one - wanted) < Math.abs(steps[best]! - wanted) ? index : best), 0));
  };
  const open = () => {
    const line = lines.find((one) => step !== null && one.steps.includes(step));
    if (line && step !== null) location.hash = line.place(step);
  };
  const move = (event: KeyboardEvent) => {
    if (event.key === "Enter") return open();
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    setAt(Math.min(steps.length - 1, Math.max(0, (at ?? (by > 0 ? -1 : steps.length)) + by)));
  };
  return (
    <figure class="chart">
      <figcaption><b>{title}</b> <span>{unit}</span></figcaption>
      <div class="plot" tabIndex={0} role="group" aria-label={`${title}: arrow keys read the steps`} data-keys onKeyDown={move} onMouseMove={point} onMouseLeave={() => setAt(null)} onClick={open}>
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
          {ticks.map((tick) => (
            <g key={tick}>
              <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={y(tick)} y2={y(tick)} />
              <text x={LEFT - 6} y={y(tick) + 4} text-anchor="end">{figure(tick, 6)}</text>
            </g>
          ))}
          {ticksOf(from, to).filter((tick) => tick >= from && tick <= to && Number.isInteger(tick)).map((tick) => (
            <text key={tick} x={x(tick)} y={HEIGHT - 6} text-anchor="middle">{tick}</text>
          ))}
          {lines.map((line, number) => (
            <g key={line.name} class={`c${number % 6}`}>
              <path class="thin" d={path(line, line.values)} />
              <path class="thick" d={path(line, smooth(line.values))} />
            </g>
          ))}
          {step !== null && <line class="cursor" x1={x(step)} x2={x(step)} y1={TOP} y2={HEIGHT - BOTTOM} />}
          {lines.map((line, number) => {
            const value = valueAt(line);
            return value === null || step === null ? null : <circle key={line.name} class={`c${number % 6}`} cx={x(step)} cy={y(value)} r="3.5" />;
          })}
        </svg>
      </div>
      <ul class="legend" aria-live="polite">
        {step !== null && <li class="step">step {step}</li>}
        {lines.map((line, number) => (
          <li key={line.name}><i class={`c${number % 6}`} aria-hidden="true" />{line.name}{valueAt(line) !== null && <b> {figure(valueAt(line)!)}</b>}</li>
        ))}
      </ul>
      <Figures steps={steps} lines={lines} />
    </figure>
  );
}

/** The chart's values as a table: for screen readers, and to copy. */
function Figures({ steps, lines }: { steps: number[]; lines: Line[] }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="figures" onToggle={(event) => setOpen((event.currentTarget as HTMLDetailsElement).open)}>
      <summary>As a table</summary>
      {open && (
        <div tabIndex={0}>
          <table>
            <thead><tr><th scope="col">step</th>{lines.map((line) => <th key={line.name} scope="col">{line.name}</th>)}</tr></thead>
            <tbody>
              {steps.map((step) => (
                <tr key={step}>
                  <th scope="row">{step}</th>
                  {lines.map((line) => {
                    const value = line.values[line.steps.indexOf(step)] ?? null;
                    return <td key={line.name}>{value === null ? "" : figure(value, 4)}</td>;
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}

function smooth(values: (number | null)[]): (number | null)[] {
  return values.map((value, index) => {
    const around = values.slice(Math.max(0, index - SMOOTH + 1), index + 1).filter((one): one is number => one !== null);
    return value === null ? null : around.reduce((total, one) => total + one, 0) / around.length;
  });
}

/** Four to eight round numbers that hold the range between them. */
export function ticksOf(low: number, high: number): number[] {
  const raw = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((one) => one * power >= raw) ?? 10);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}
