// A picture with what a tool was asked about and what it found drawn over it, in the picture's own pixels.
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import type { Overlay, Picture } from "./data";
import { figure } from "./words";

export const LAYERS = ["boxes", "points", "masks", "names"] as const;
export type Layer = (typeof LAYERS)[number];
export const DEFAULT_LAYERS = "boxes,points,masks";

export interface Looks {
  /** Where a picture is to be had from; null where it was not kept. */
  source(picture: Picture): string | null;
  layers: Set<string>;
}
export const LooksContext = createContext<Looks>(undefined as unknown as Looks);

export type Asked = [number, number, number, number][];
export const NOTHING: Overlay = { boxes: [], points: [] };

interface FrameProperties {
  picture: Picture;
  overlay?: Overlay;
  asked?: Asked;
  asksFor?: [number, number][];
  lit?: number | null;
}

/** The picture and its layers, filling the element around it. */
export function Layers({ picture, overlay = NOTHING, asked = [], asksFor = [], lit = null }: FrameProperties) {
  const { source: sourceOf, layers } = useContext(LooksContext);
  const [gone, setGone] = useState(false);
  const source = sourceOf(picture);
  const { width, height } = picture;
  const x = (percent: number) => (percent * width) / 100;
  const y = (percent: number) => (percent * height) / 100;
  if (source === null || gone) return <span class="gone">This picture was not kept</span>;
  const rectangle = ([x1, y1, x2, y2]: readonly (number | string)[], kind: string) => box(Number(x1), Number(y1), Number(x2), Number(y2), kind);
  const box = (x1: number, y1: number, x2: number, y2: number, kind: string) => (
    <rect class={kind} x={x(Math.min(x1, x2))} y={y(Math.min(y1, y2))} width={x(Math.abs(x2 - x1))} height={y(Math.abs(y2 - y1))} />
  );
  const named = (left: number, top: number, text: string) => layers.has("names") && text && (
    <span class="name" style={{ left: `${left}%`, top: `${top}%` }}>{text}</span>
  );
  return (
    <>
      <img src={source} width={width} height={height} alt="" decoding="async" onError={() => setGone(true)} />
      {layers.has("masks") && overlay.masks?.map((mask, number) => <img key={number} class="mask" src={mask} alt="" />)}
      <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
        {layers.has("boxes") && asked.map((box) => rectangle(box, "box asked"))}
        {layers.has("boxes") && overlay.boxes.map((box, number) => rectangle(box, number === lit ? "box lit" : "box"))}
      </svg>
      {layers.has("points") && asksFor.map(([left, top], number) => (
        <i key={number} class="point asked" style={{ left: `${left}%`, top: `${top}%` }} />
      ))}
      {layers.has("points") && overlay.points.map(([left, top], number) => (
        <i key={number} class={overlay.boxes.length + number === lit ? "point lit" : "point"} style={{ left: `${left}%`, top: `${top}%` }} />
      ))}
      {overlay.boxes.map(([x1, y1, x2, , name]) => named(Math.min(x1, x2), y1, name))}
      {overlay.points.map(([left, top, name]) => named(left, top, name))}
    </>
  );
}

interface Properties extends FrameProperties {
  handle: string;
  caption: string;
}

export function Figure(properties: Properties) {
  const { picture, handle, caption, overlay = NOTHING } = properties;
  const [lit, setLit] = useState<number | null>(null);
  const [open, setOpen] = useState(false);
  const scale = Math.min(3, 420 / Math.max(picture.width, picture.height * 1.15));
  const names = [...overlay.boxes.map((box) => box[4]), ...overlay.points.map((point) => point[2])];
  const size = `${picture.width} × ${picture.height}`;
  return (
    <figure class="picture">
      <button type="button" class="frame" aria-label={`${handle}, ${caption}, ${picture.width} by ${picture.height} pixels: enlarge`}
        onClick={() => setOpen(true)}
        style={{ width: `${Math.max(48, Math.round(picture.width * scale))}px`, aspectRatio: `${picture.width} / ${picture.height}` }}>
        <Layers {...properties} lit={lit} />
      </button>
      <figcaption><b>{handle}</b> {caption} <span class="size">{size}</span></figcaption>
      {names.some(Boolean) && (
        <ul class="found" aria-label={`Found in ${handle}`}>
          {names.map((name, number) => (
            <li key={number} class={number === lit ? "lit" : undefined} onMouseEnter={() => setLit(number)} onMouseLeave={() => setLit(null)}>
              {name || "(no name)"}
            </li>
          ))}
        </ul>
      )}
      {open && <Enlarged {...properties} close={() => setOpen(false)} />}
    </figure>
  );
}

const ZOOMS = [0, 1, 2, 4, 8]; // 0: as large as fits

function Enlarged(properties: Properties & { close(): void }) {
  const { picture, handle, caption, close } = properties;
  const dialog = useRef<HTMLDialogElement>(null);
  const [zoom, setZoom] = useState(0);
  const [place, setPlace] = useState("");
  useEffect(() => dialog.current!.showModal(), []);
  const fit = Math.min((innerWidth * 0.94 - 32) / picture.width, (innerHeight * 0.9 - 90) / picture.height);
  const width = picture.width * (zoom || fit);
  const read = (event: MouseEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    setPlace(`${figure(100 * x, 1)} %, ${figure(100 * y, 1)} % · pixel ${Math.floor(x * picture.width)}, ${Math.floor(y * picture.height)}`);
  };
  return (
    <dialog ref={dialog} class="enlarged" aria-label={`${handle}, ${caption}`} onClose={close}
      onClick={(event) => event.target === dialog.current && dialog.current!.close()}>
      <header>
        <b>{handle}</b> <span>{caption}</span> <span class="size">{picture.width} × {picture.height}</span>
        <output>{place}</output>
        <span class="buttons">
          {ZOOMS.map((one) => (
            <button type="button" key={one} aria-pressed={zoom === one} onClick={() => setZoom(one)}>{one ? `${100 * one} %` : "Fit"}</button>
          ))}
          <button type="button" onClick={() => dialog.current!.close()}>Close</button>
        </span>
      </header>
      <div class="room" tabIndex={0} role="group" aria-label="Picture">
        <div class="frame" onMouseMove={read} onMouseLeave={() => setPlace("")} style={{ width: `${width}px`, aspectRatio: `${picture.width} / ${picture.height}` }}>
          <Layers {...properties} />
        </div>
      </div>
    </dialog>
  );
}
