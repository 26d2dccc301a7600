// The tokens of a turn: which ones the model sampled, and how likely each was.
import { useState } from "preact/hooks";
import type { Turn } from "./data";
import { figure, plural } from "./words";

interface Chip {
  token: number;
  own: boolean;
  logprob: number | null;
  run: number; // equal template tokens in a row, such as an image's places
}

export function chipsOf(turn: Turn): Chip[] {
  const { tokens = [], mask = "", logprobs } = turn;
  const chips: Chip[] = [];
  tokens.forEach((token, index) => {
    const own = mask[index] === "1";
    const before = chips.at(-1);
    if (!own && before && !before.own && before.token === token) before.run += 1;
    else chips.push({ token, own, logprob: own ? (logprobs?.[index] ?? null) : null, run: 1 });
  });
  return chips;
}

export function Tokens({ turn, pieces }: { turn: Turn; pieces?: Record<string, string> }) {
  const [at, setAt] = useState(0);
  if (!turn.tokens?.length) return <p class="note">No tokens were recorded for this turn.</p>;
  const chips = chipsOf(turn);
  const own = chips.filter((chip) => chip.own);
  const known = own.flatMap((chip) => chip.logprob ?? []);
  const sum = known.reduce((total, value) => total + value, 0);
  const chosen = chips[Math.min(at, chips.length - 1)]!;
  const text = (chip: Chip) => (pieces?.[chip.token] ?? String(chip.token)).replaceAll("\n", "⏎") || "∅";
  const move = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = Math.min(chips.length - 1, Math.max(0, at + by));
    setAt(next);
    (event.currentTarget as HTMLElement).children[next]?.scrollIntoView({ block: "nearest" });
  };
  return (
    <div class="token-view">
      <p class="note">
        {plural(turn.tokens.length, "token")}, {own.length} sampled by the model
        {known.length > 0 && <> · sum of log p {figure(sum, 2)} · mean {figure(sum / known.length, 3)}</>}
      </p>
      <div class="tokens" tabIndex={0} role="group" aria-label="Tokens; arrow keys read them one by one" data-keys onKeyDown={move}>
        {chips.map((chip, index) => (
          <span key={index} class={`${chip.own ? "own" : ""}${index === at ? " at" : ""}`} onMouseEnter={() => setAt(index)}
            style={chip.logprob === null ? undefined : { "--doubt": Math.round(100 * (1 - Math.exp(chip.logprob))) }}>
            {text(chip)}{chip.run > 1 && <small> × {chip.run}</small>}
          </span>
        ))}
      </div>
      <output class="token-at">{reading(chosen, text(chosen))}</output>
    </div>
  );
}

function reading(chip: Chip, text: string): string {
  const parts = [`“${text}”`, `id ${chip.token}`];
  if (chip.logprob !== null) parts.push(`log p ${figure(chip.logprob)}`, `p ${figure(100 * Math.exp(chip.logprob), 1)} %`);
  parts.push(chip.own ? "sampled, in the loss" : "not sampled, masked");
  return parts.join(" · ");
}
