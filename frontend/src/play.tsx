// The page `/play` of a gateway: a picture, the tools by hand, the models, and all that happens as it happens.
import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Call, Overlay, Picture, Trajectory, Turn } from "./data";
import { argumentsOf, drawn, Form, shapeOf, type Values } from "./form";
import { blobOf, Gateway, type Held, holdPicture, keyOfThisTab, Refused, type Served, type Tool } from "./gateway";
import { KeyForm } from "./key";
import { Trouble } from "./parts";
import { DEFAULT_LAYERS, Layers, LooksContext, NOTHING } from "./picture";
import { TurnItem } from "./trajectory";

const EMPTY: Trajectory = {
  id: "", question: "", reference: null, answer: null, status: "running", correct: null, rewards: {}, seconds: null, meta: {}, images: {}, turns: [],
};
const LOOKS = { source: (picture: Picture) => picture.src, layers: new Set(DEFAULT_LAYERS.split(",")) };
const gateway = new Gateway(keyOfThisTab());

function App() {
  const [tools, setTools] = useState<Tool[]>();
  const [models, setModels] = useState<Served[]>([]);
  const [error, setError] = useState<unknown>();
  const [needsKey, setNeedsKey] = useState(false);
  const connect = async () => {
    setError(undefined);
    try {
      const [found, served] = await Promise.all([gateway.tools(), gateway.models()]);
      setTools(found);
      setModels(served);
      setNeedsKey(false);
    } catch (failure) {
      if (failure instanceof Refused && failure.status === 401) setNeedsKey(true);
      else setError(failure);
    }
  };
  useEffect(() => void connect(), []);
  return (
    <LooksContext.Provider value={LOOKS}>
      <header class="bar">
        <h1>ThinkIMG play</h1>
        <span class="note">{tools ? `${tools.length} tools, ${models.length === 1 ? "1 model" : `${models.length || "no"} models`}` : ""}</span>
      </header>
      <main class="play" tabIndex={-1}>
        {error ? <Trouble error={error} /> : null}
        {needsKey && <KeyForm use={(key) => { gateway.useKey(key); connect(); }} />}
        {tools && <Bench tools={tools} models={models} />}
      </main>
    </LooksContext.Provider>
  );
}

function Bench({ tools, models }: { tools: Tool[]; models: Served[] }) {
  const [pictures, setPictures] = useState<Record<string, Held>>({});
  const [record, setRecord] = useState<Trajectory>(EMPTY);
  const [shown, setShown] = useState("img_1");
  const [tool, setTool] = useState(tools[0]!);
  const [values, setValues] = useState<Values>({});
  const [mode, setMode] = useState<"tool" | "model">(models.length ? "model" : "tool");
  const [error, setError] = useState<unknown>();
  const [work, setWork] = useState<AbortController>();
  const last = useRef<HTMLDivElement>(null);
  const handles = Object.keys(pictures);

  const take = async (blob: Blob) => {
    try {
      const picture = await holdPicture(blob);
      work?.abort();
      setPictures({ img_1: picture });
      setRecord({ ...EMPTY, images: { img_1: picture } });
      setShown("img_1");
      setValues((before) => ({ ...cleared(tool, before), ...named(tool, "img_1") }));
      setError(undefined);
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (file) take(file);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  });
  useEffect(() => last.current?.scrollIntoView({ block: "nearest" }), [record.turns.length]);

  /** The turn, and the pictures that came with it. */
  const add = (turn: Turn, found: Record<string, Held> = {}) => {
    setPictures((before) => ({ ...before, ...found }));
    setRecord((before) => ({ ...before, images: { ...before.images, ...found }, turns: [...before.turns, turn] }));
  };
  const doing = async (what: (signal: AbortSignal) => Promise<void>) => {
    const controller = new AbortController();
    setWork(controller);
    setError(undefined);
    try {
      await what(controller.signal);
    } catch (failure) {
      if ((failure as Error).name !== "AbortError") setError(failure);
    }
    setWork(undefined);
  };

  const runTool = () => doing(async (signal) => {
    const args = argumentsOf(tool, values);
    const sent = Object.fromEntries(Object.values(args).flatMap((value) => (typeof value === "string" && pictures[value] ? [[value, pictures[value]]] : [])));
    const id = `call_${record.turns.length}`;
    add({ role: "assistant", seconds: null, finish: null, blocks: [{ type: "tool_call", id, name: tool.name, arguments: args }] });
    const began = performance.now();
    const result = (error: string | null, text: string, overlay: Overlay = NOTHING, data = {}): Turn["blocks"][number] => ({
      type: "tool_result", call_id: id, name: tool.name, text, data, overlay, error, cached: false, seconds: (performance.now() - began) / 1000,
    });
    try {
      const answer = await gateway.call(tool.name, args, sent, signal);
      const block = result(null, answer.text, answer.overlay, answer.data);
      const made: Record<string, Held> = {};
      for (const image of answer.images) made[`img_${handles.length + Object.keys(made).length + 1}`] = await holdPicture(blobOf(image.data));
      add({ role: "tool", seconds: null, finish: null, blocks: [block, ...Object.keys(made).map((handle) => ({ type: "image" as const, handle }))] }, made);
    } catch (failure) {
      const text = (failure as Error).name === "AbortError" ? "Stopped." : (failure as Error).message;
      add({ role: "tool", seconds: null, finish: null, blocks: [result("refused", text)] });
    }
  });

  const askModel = (model: string, question: string) => doing(async (signal) => {
    const first = pictures.img_1!;
    setPictures({ img_1: first });
    setRecord({ ...EMPTY, question, images: { img_1: first }, turns: [{ role: "user", seconds: null, finish: null, blocks: [{ type: "image", handle: "img_1" }, { type: "text", text: question }] }] });
    const answer = await gateway.ask(model, question, [first], add, signal);
    setRecord((before) => ({ ...before, answer }));
  });

  const calls = useMemo(
    () => new Map(record.turns.flatMap((turn) => turn.blocks).filter((block): block is Call => block.type === "tool_call").map((call) => [call.id, call])),
    [record],
  );
  return (
    <>
      <div class="left">
      <section aria-label="Picture">
        <Choose take={take} />
        {pictures[shown] ? (
          <Canvas picture={pictures[shown]} overlay={mode === "tool" ? overlayOf(tool, values) : NOTHING}
            draw={mode === "tool" ? (from, to) => setValues({ ...drawn(tool, values, from, to), ...named(tool, shown) }) : undefined} />
        ) : <p class="note empty">Drop a picture here, paste one, choose a file, or take the example.</p>}
        {handles.length > 1 && (
          <ul class="thumbs" aria-label="Pictures">
            {handles.map((handle) => (
              <li key={handle}><button type="button" aria-pressed={handle === shown} onClick={() => { setShown(handle); setValues({ ...cleared(tool, values), ...named(tool, handle) }); }}>
                <img src={pictures[handle]!.src} alt="" /> {handle}</button></li>
            ))}
          </ul>
        )}
      </section>
      <section class="ask" aria-label="What to do">
        {models.length > 0 && (
          <span class="buttons" role="group" aria-label="Who looks">
            <button type="button" aria-pressed={mode === "model"} onClick={() => setMode("model")}>Ask a model</button>
            <button type="button" aria-pressed={mode === "tool"} onClick={() => setMode("tool")}>Call a tool</button>
          </span>
        )}
        {mode === "model" ? <Question models={models} ready={Boolean(pictures.img_1)} busy={Boolean(work)} ask={askModel} /> : (
          <>
            <label class="pick"><span>Tool</span>
              <select name="tool" value={tool.name} onChange={(event) => {
                const chosen = tools.find((one) => one.name === event.currentTarget.value)!;
                setTool(chosen);
                setValues(named(chosen, shown));
              }}>{tools.map((one) => <option key={one.name}>{one.name}</option>)}</select>
            </label>
            <Form tool={tool} values={values} handles={handles} change={setValues} submit={runTool} busy={Boolean(work) || !handles.length} />
          </>
        )}
        {work && <button type="button" onClick={() => work.abort()}>Stop</button>}
        {error ? <Trouble error={error} /> : null}
      </section>
      </div>
      <section class="course" aria-label="What happened" aria-live="polite">
        {record.turns.length > 0 && (
          <ol class="turns column">
            {record.turns.map((turn, index) => (
              <TurnItem key={index} number={index + 1} turn={turn} record={record} calls={calls} isCurrent={false} withTokens={false} place={`#turn-${index + 1}`} caller={record.question ? undefined : "You"} />
            ))}
          </ol>
        )}
        {record.turns.length === 0 && <p class="note nothing">Each call, each picture and the answer appear here as they happen.</p>}
        {record.answer !== null && <p class="answered"><b>Answer</b> {record.answer || "none"}</p>}
        <div ref={last} />
      </section>
    </>
  );
}

/** The image argument of a tool, filled in with the picture that is looked at. */
const named = (tool: Tool, handle: string): Values => Object.fromEntries(tool.image_parameters.slice(0, 1).map((name) => [name, handle]));

/** Places on another picture mean nothing on this one. */
const cleared = (tool: Tool, values: Values): Values =>
  Object.fromEntries(Object.entries(values).filter(([name]) => !shapeOf(name, tool.parameters.properties[name] ?? {})));

/** What the form's values name on the picture, drawn while they are chosen. */
function overlayOf(tool: Tool, values: Values): Overlay {
  const overlay: Overlay = { boxes: [], points: [] };
  for (const [name, schema] of Object.entries(tool.parameters.properties)) {
    const shape = shapeOf(name, schema);
    let value: unknown;
    try {
      value = values[name] ? JSON.parse(values[name]) : undefined;
    } catch {
      continue; // while it is typed
    }
    if (value === undefined) continue;
    if (shape === "x") overlay.boxes.push([Number(value), 0, Number(value), 100, ""]);
    if (shape === "y") overlay.boxes.push([0, Number(value), 100, Number(value), ""]);
    const all = (shape === "box" || shape === "point" ? [value] : Array.isArray(value) ? value : []) as number[][];
    for (const one of all) {
      if (!Array.isArray(one)) continue;
      if (one.length === 4) overlay.boxes.push([one[0]!, one[1]!, one[2]!, one[3]!, ""]);
      if (one.length === 2) overlay.points.push([one[0]!, one[1]!, ""]);
    }
  }
  return overlay;
}

function Choose({ take }: { take(blob: Blob): void }) {
  const [over, setOver] = useState(false);
  const example = async () => take(await (await fetch("pages/example.png")).blob());
  return (
    <div class={over ? "choose over" : "choose"} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); const file = event.dataTransfer?.files[0]; if (file) take(file); }}>
      <label class="button">Choose a picture<input type="file" accept="image/*" onChange={(event) => { const file = event.currentTarget.files?.[0]; if (file) take(file); }} /></label>
      <button type="button" onClick={example}>Take the example</button>
      <span class="note">or drop or paste one here</span>
    </div>
  );
}

interface CanvasProperties {
  picture: Held;
  overlay: Overlay;
  draw?: (from: [number, number], to: [number, number]) => void;
}

function Canvas({ picture, overlay, draw }: CanvasProperties) {
  const [from, setFrom] = useState<[number, number]>();
  const [to, setTo] = useState<[number, number]>();
  const place = (event: PointerEvent): [number, number] => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return [(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height];
  };
  const drawing: Overlay = from && to ? { ...overlay, boxes: [...overlay.boxes, [from[0], from[1], to[0], to[1], ""]] } : overlay;
  return (
    <div class={draw ? "frame canvas draws" : "frame canvas"} style={{ aspectRatio: `${picture.width} / ${picture.height}`, maxWidth: `${Math.max(320, picture.width)}px` }}
      onPointerDown={(event) => { if (!draw) return; event.preventDefault(); (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId); setFrom(place(event)); setTo(undefined); }}
      onPointerMove={(event) => from && setTo(place(event))}
      onPointerUp={(event) => { if (from && draw) draw(from, place(event)); setFrom(undefined); setTo(undefined); }}>
      <Layers picture={picture} overlay={drawing} />
    </div>
  );
}

function Question({ models, ready, busy, ask }: { models: Served[]; ready: boolean; busy: boolean; ask(model: string, question: string): void }) {
  const [model, setModel] = useState(models[0]!.id);
  const [question, setQuestion] = useState("");
  return (
    <form class="form" onSubmit={(event) => { event.preventDefault(); ask(model, question); }}>
      <label><span>Model</span><select name="model" value={model} onChange={(event) => setModel(event.currentTarget.value)}>{models.map((one) => <option key={one.id}>{one.id}</option>)}</select></label>
      <label><span>Question</span><textarea name="question" rows={3} required value={question} onInput={(event) => setQuestion(event.currentTarget.value)} /></label>
      {!ready && <p class="note">First give it a picture.</p>}
      <button type="submit" class="main" disabled={busy || !ready}>{busy ? "It thinks …" : "Ask"}</button>
    </form>
  );
}

render(<App />, document.getElementById("app")!);
