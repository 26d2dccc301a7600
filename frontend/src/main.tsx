// The page of `thinkimg view`: its frame, and which view is open.
import { render } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { format, useAddress, type View } from "./address";
import { Compare } from "./compare";
import { Curves } from "./curves";
import { FileStore, ServerStore, type State, type Store, StoreContext } from "./data";
import { Trouble } from "./parts";
import { DEFAULT_LAYERS, LooksContext } from "./picture";
import { Trajectories } from "./trajectories";
import { thousands } from "./words";

const NAMES: Record<View, string> = { trajectories: "Trajectories", compare: "Compare", curves: "Curves" };
const WHILE_READING = 700; // ms between looks at the state while files are read
const OTHERWISE = 5000;
const THEMES = ["auto", "light", "dark"] as const;

function App({ store }: { store: Store }) {
  const address = useAddress();
  const { state, error } = useStateOf(store);
  const layers = address.choices.layers ?? DEFAULT_LAYERS;
  const looks = useMemo(() => ({ source: store.picture, layers: new Set(layers.split(",")) }), [store, layers]);
  const title = state?.runs.join(", ") ?? "";
  useEffect(() => {
    document.title = [NAMES[address.view], title, "ThinkIMG"].filter(Boolean).join(" · ");
  }, [title, address.view]);
  return (
    <StoreContext.Provider value={store}><LooksContext.Provider value={looks}>
      <a class="skip" href={location.hash || "#/"} onClick={(event) => { event.preventDefault(); document.querySelector<HTMLElement>("main")?.focus(); }}>Skip to the content</a>
      <header class="bar">
        <h1>{title || "ThinkIMG"}</h1>
        <nav aria-label="Views">
          {(Object.keys(NAMES) as View[]).map((view) => (
            <a key={view} href={format({ view, choices: {} })} aria-current={address.view === view ? "page" : undefined}>{NAMES[view]}</a>
          ))}
        </nav>
        {state?.working && <span class="progress"><progress value={state.read} aria-label="Reading files" /> {thousands(state.facets.total)} read</span>}
        <ThemeButton />
      </header>
      <main tabIndex={-1}>
        {error ? <Trouble error={error} /> : null}
        {state && state.problems.count > 0 && (
          <details class="problems"><summary>{thousands(state.problems.count)} lines could not be read</summary><pre tabIndex={0}>{state.problems.first.join("\n")}</pre></details>
        )}
        {state && address.view === "trajectories" && <Trajectories address={address} state={state} />}
        {state && address.view === "compare" && <Compare address={address} state={state} />}
        {state && address.view === "curves" && <Curves version={state.version} many={state.runs.length > 1} />}
      </main>
    </LooksContext.Provider></StoreContext.Provider>
  );
}

/** The state, looked at again while files are read or may grow; never in a page that nobody sees. */
function useStateOf(store: Store): { state?: State; error?: unknown } {
  const [result, set] = useState<{ state?: State; error?: unknown }>({});
  useEffect(() => {
    let timer = 0;
    const look = async () => {
      let pause = OTHERWISE;
      if (!document.hidden) {
        try {
          const state = await store.state();
          pause = state.working ? WHILE_READING : OTHERWISE;
          set((before) => (JSON.stringify(before.state) === JSON.stringify(state) && !before.error ? before : { state }));
        } catch (error) {
          set((before) => ({ ...before, error }));
        }
      }
      if (store.live) timer = setTimeout(look, pause);
    };
    look();
    return () => clearTimeout(timer);
  }, [store]);
  return result;
}

function ThemeButton() {
  const [theme, set] = useState(() => THEMES.find((one) => one === document.documentElement.dataset.theme) ?? "auto");
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
  const change = () => {
    set(next);
    applyTheme(next);
    try {
      localStorage.setItem("thinkimg-theme", next);
    } catch {
      // a browser that keeps nothing: the choice holds for this page
    }
  };
  return <button type="button" class="theme" onClick={change} aria-label={`Colours: ${theme}; change to ${next}`}>{theme}</button>;
}

function applyTheme(theme: string): void {
  document.documentElement.dataset.theme = theme;
}

try {
  applyTheme(localStorage.getItem("thinkimg-theme") ?? "auto");
} catch {
  applyTheme("auto");
}
const data = document.getElementById("data");
render(<App store={data ? new FileStore(JSON.parse(data.textContent!)) : new ServerStore()} />, document.getElementById("app")!);
