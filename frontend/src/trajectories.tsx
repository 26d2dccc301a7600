// The list of trajectories and the one that is read.
import { useContext, useState } from "preact/hooks";
import { type Address, changed, go, selectionOf } from "./address";
import { type Row, type State, StoreContext } from "./data";
import { Filters } from "./filters";
import { List } from "./list";
import { Sign, Trouble, useKeys, useLoaded } from "./parts";
import {} from "./picture";
import { Reader } from "./trajectory";
import { figure, origin, plural, short, thousands } from "./words";

export const ROW_HEIGHT = 54;

export function Trajectories({ address, state }: { address: Address; state: State }) {
  const store = useContext(StoreContext);
  const { choices } = address;
  const selection = selectionOf(choices);
  const name = JSON.stringify(selection);
  const key = choices.t ?? "";
  const [total, setTotal] = useState<number | null>(null);
  const [error, setError] = useState<unknown>(null);
  const place = useLoaded(() => (key ? store.page(selection, 0, 1, key) : Promise.resolve(null)), [name, key, state.version]);
  const position = place.value?.found ?? null;
  const many = state.runs.length > 1;

  const open = (row: Row, replace: boolean) => go(changed(address, { t: row.key, vs: "", turn: "" }), replace);
  const step = async (by: number) => {
    if (!total) return;
    const index = position === null ? 0 : Math.min(total - 1, Math.max(0, position + by));
    const { rows } = await store.page(selection, index, 1);
    if (rows[0]) open(rows[0], true);
  };
  useKeys({
    j: () => step(1),
    k: () => step(-1),
    "/": () => document.querySelector<HTMLInputElement>("input[name=q]")?.focus(),
  });

  return (
    <div class={key ? "view reading" : "view"}>
      <Filters address={address} facets={state.facets} />
      <div class="panes">
        <section class="side" aria-label="List">
          <p class="count" role="status">
            {total === null ? "…" : total === state.facets.total ? plural(total, "trajector").replace(/trajectors?$/, total === 1 ? "trajectory" : "trajectories") : `${thousands(total)} of ${thousands(state.facets.total)} match`}
            <ExportLink selection={selection} total={total} />
          </p>
          {error ? <Trouble error={error} /> : null}
          <List<Row> label="Trajectories; arrow keys move" rowHeight={ROW_HEIGHT} name={name} version={state.version} current={key} position={position}
            load={(offset, limit) => store.page(selection, offset, limit)} keyOf={(row) => row.key}
            choose={(row) => open(row, true)} onTotal={(number) => { setTotal(number); setError(null); }} onError={setError}
            row={(row) => <RowLink row={row} href={changed(address, { t: row.key, vs: "", turn: "" })} isCurrent={row.key === key} withRun={many} />} />
        </section>
        {key ? (
          <Reader address={address} left={key} right={choices.vs} back={changed(address, { t: "", vs: "", turn: "" })} />
        ) : (
          <section class="reader empty"><p>Choose a trajectory.</p><Keys /></section>
        )}
      </div>
    </div>
  );
}

function RowLink({ row, href, isCurrent, withRun }: { row: Row; href: string; isCurrent: boolean; withRun: boolean }) {
  return (
    <a href={href} tabIndex={-1} aria-current={isCurrent ? "true" : undefined}>
      <Sign correct={row.correct} />
      <span class="question">{row.question}</span>
      <span class="reward">{row.reward === null ? "" : figure(row.reward, 2)}</span>
      <span class="under">
        <span>{row.answer === null ? "no answer" : short(row.answer, 24)}</span>
        <span>{row.calls ? row.tools : "no tool"}{row.calls > 1 ? ` ×${row.calls}` : ""}</span>
        {row.failed > 0 && <span class="fault">error</span>}
      </span>
      <span class="from">{origin(row, withRun)}</span>
    </a>
  );
}

function ExportLink({ selection, total }: { selection: Record<string, string>; total: number | null }) {
  const store = useContext(StoreContext);
  const address = store.exportAddress(selection);
  if (!address || !total) return null;
  return total > 2000
    ? <span class="note" title="A file holds at most 2,000 trajectories; narrow the filter">Export: at most 2,000</span>
    : <a href={address} download="trajectories.html">Export</a>;
}

function Keys() {
  const keys = [["j k", "next, previous"], ["← →", "turns"], ["/", "search"], ["t", "tokens"], ["Enter", "to the text"], ["Esc", "back"]];
  return <dl class="keys">{keys.map(([key, word]) => [<dt key={key}><kbd>{key}</kbd></dt>, <dd key={word}>{word}</dd>])}</dl>;
}

