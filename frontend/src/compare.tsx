// Two models on the same questions: who was right where, and both trajectories side by side.
import { useContext, useState } from "preact/hooks";
import { type Address, changed, go } from "./address";
import { type Pair, type Pairs, type Source, type State, StoreContext } from "./data";
import { List } from "./list";
import { Sign, Trouble, useKeys, useLoaded } from "./parts";
import {} from "./picture";
import { Reader } from "./trajectory";
import { ROW_HEIGHT } from "./trajectories";
import { origin, short, thousands } from "./words";

/** How the address names a source. */
const nameOf = ({ run, stage, model, mode }: Source) => [run, stage, model, mode].join("|");

export function Compare({ address, state }: { address: Address; state: State }) {
  const store = useContext(StoreContext);
  const { choices } = address;
  const { sources } = state.facets;
  const find = (name?: string) => sources.find((source) => nameOf(source) === name);
  const left = find(choices.a) ?? sources[0];
  const right = find(choices.b) ?? sources.find((source) => source !== left && source.mode === left?.mode) ?? sources.find((source) => source !== left);
  const key = choices.t ?? "";
  const only = choices.only ?? "";
  const many = state.runs.length > 1;
  const name = JSON.stringify([left && nameOf(left), right && nameOf(right), only]);
  const [counts, setCounts] = useState<Pairs["counts"]>({});
  const [error, setError] = useState<unknown>(null);
  const [position, setPosition] = useState<number | null>(null);
  const pairs = useLoaded(() => (left && right ? store.pairs(left, right, "", 0, 1) : Promise.reject(new Error("There are no two models to compare."))), [name, state.version]);
  const sums = pairs.value?.counts ?? counts;
  const load = async (offset: number, limit: number) => {
    const page = await store.pairs(left!, right!, only, offset, limit);
    setCounts(page.counts);
    return page;
  };
  const open = (pair: Pair, index: number, replace: boolean) => {
    setPosition(index);
    go(changed(address, { t: pair.left.key, vs: pair.right.key, turn: "" }), replace);
  };
  const step = async (by: number) => {
    if (!left || !right) return;
    const index = position === null ? 0 : Math.max(0, position + by);
    const { rows } = await store.pairs(left, right, only, index, 1);
    if (rows[0]) open(rows[0], index, true);
  };
  useKeys({ j: () => step(1), k: () => step(-1) });

  const select = (side: "a" | "b", label: string, chosen: Source | undefined) => (
    <label>
      <span>{label}</span>
      <select name={side} value={chosen && nameOf(chosen)} onChange={(event) => go(changed(address, { [side]: event.currentTarget.value, t: "", vs: "", turn: "" }), true)}>
        {sources.map((source) => <option key={nameOf(source)} value={nameOf(source)}>{origin(source, many)} ({thousands(source.count)})</option>)}
      </select>
    </label>
  );
  const all = Object.values(sums).reduce((total, count) => total + count, 0);
  const outcomes: [string, string, number][] = [
    ["", "All", all], ["left", "Only A right", sums.left ?? 0], ["right", "Only B right", sums.right ?? 0], ["both", "Both", sums.both ?? 0], ["neither", "Neither", sums.neither ?? 0],
  ];
  return (
    <div class={key ? "view reading" : "view"}>
      <form class="filters" aria-label="What to compare" onSubmit={(event) => event.preventDefault()}>
        <div class="controls">{select("a", "A", left)}{select("b", "B", right)}</div>
        <div class="outcomes buttons" role="group" aria-label="Outcome">
          {outcomes.map(([value, label, count]) => (
            <button type="button" key={value} aria-pressed={only === value} onClick={() => go(changed(address, { only: value, t: "", vs: "", turn: "" }), true)}>
              {label} <b>{thousands(count)}</b>
            </button>
          ))}
        </div>
      </form>
      <div class="panes">
        <section class="side" aria-label="List">
          <p class="count" role="status">{all === 0 ? "No question in common" : `${thousands(all)} questions in common`}</p>
          {error || pairs.error ? <Trouble error={error || pairs.error} /> : null}
          {left && right && (
            <List<Pair> label="Questions; arrow keys move" rowHeight={ROW_HEIGHT} name={name} version={state.version} current={key} position={position}
              load={load} keyOf={(pair) => pair.left.key} choose={(pair, index) => open(pair, index, true)} onTotal={() => setError(null)} onError={setError}
              row={(pair, index) => (
                <a href={changed(address, { t: pair.left.key, vs: pair.right.key, turn: "" })} onClick={() => setPosition(index)} tabIndex={-1} class="pair" aria-current={pair.left.key === key ? "true" : undefined}>
                  <span class="question">{pair.left.question}</span>
                  <span class="under">
                    <span>A <Sign correct={pair.left.correct} /> {short(pair.left.answer ?? "no answer", 20)}</span>
                    <span>B <Sign correct={pair.right.correct} /> {short(pair.right.answer ?? "no answer", 20)}</span>
                  </span>
                </a>
              )} />
          )}
        </section>
        {key && choices.vs ? (
          <Reader address={address} left={key} right={choices.vs} back={changed(address, { t: "", vs: "", turn: "" })} />
        ) : (
          <section class="reader empty"><p>Choose a question.</p></section>
        )}
      </div>
    </div>
  );
}
