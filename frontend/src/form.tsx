// A form for a tool, made of its schema; boxes and points may be drawn on the picture.
import { useMemo } from "preact/hooks";
import type { Parameter, Tool } from "./gateway";
import { figure } from "./words";

export type Values = Record<string, string>;
export type Shape = "box" | "boxes" | "point" | "points" | "x" | "y";

/** What of a picture an argument names; null for everything else. */
export function shapeOf(name: string, schema: Parameter): Shape | null {
  if (schema.type === "number" && (name === "x" || name === "y")) return name;
  if (schema.type !== "array") return null;
  const inner = schema.items?.type === "array" ? schema.items.maxItems : schema.maxItems;
  const many = schema.items?.type === "array";
  return inner === 4 ? (many ? "boxes" : "box") : inner === 2 ? (many ? "points" : "point") : null;
}

/** The arguments that a form has values for, as the tool takes them. Throws naming what cannot be read. */
export function argumentsOf(tool: Tool, values: Values): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(tool.parameters.properties)) {
    const text = values[name] ?? "";
    if (text === "") continue;
    if (schema.type === "string" && !schema.enum) found[name] = text;
    else if (schema.type === "number" || schema.type === "integer") found[name] = Number(text);
    else {
      try {
        found[name] = JSON.parse(text);
      } catch {
        if (!schema.enum) throw new Error(`${name} is not JSON: ${text}`);
        found[name] = text;
      }
    }
  }
  return found;
}

type Place = [number, number]; // percent of the picture

/** The form's values after something was drawn on the picture: a box from one corner to the other, or a click. */
export function drawn(tool: Tool, values: Values, from: Place, to: Place): Values {
  const isClick = Math.abs(to[0] - from[0]) < 1 && Math.abs(to[1] - from[1]) < 1;
  const changed = { ...values };
  for (const [name, schema] of Object.entries(tool.parameters.properties)) {
    const shape = shapeOf(name, schema);
    const [x, y] = to.map(rounded) as Place;
    if (shape === "x") changed[name] = String(x);
    else if (shape === "y") changed[name] = String(y);
    else if (shape === "point" && isClick) changed[name] = JSON.stringify([x, y]);
    else if (shape === "points" && isClick) changed[name] = listed(values[name], [x, y], schema.maxItems);
    else if (shape === "points" && schema.maxItems === 2) changed[name] = JSON.stringify([from.map(rounded), [x, y]]);
    else if (shape === "box" && !isClick) changed[name] = JSON.stringify(boxOf(from, to));
    else if (shape === "boxes" && !isClick) changed[name] = listed(values[name], boxOf(from, to), schema.maxItems);
  }
  return changed;
}

const rounded = (percent: number) => Number(figure(Math.min(100, Math.max(0, percent)), 1));
const boxOf = (from: Place, to: Place) =>
  [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])].map(rounded);

/** One more; a list that is full begins anew. */
function listed(text: string | undefined, one: number[], most = Infinity): string {
  let before: unknown[] = [];
  try {
    before = JSON.parse(text || "[]");
  } catch {
    // what stood there was no list
  }
  return JSON.stringify(before.length < most ? [...before, one] : [one]);
}

interface Properties {
  tool: Tool;
  values: Values;
  handles: string[];
  change(values: Values): void;
  submit(): void;
  busy: boolean;
}

export function Form({ tool, values, handles, change, submit, busy }: Properties) {
  const required = useMemo(() => new Set(tool.parameters.required ?? []), [tool]);
  const drawable = Object.entries(tool.parameters.properties).flatMap(([name, schema]) => shapeOf(name, schema) ?? []);
  return (
    <form class="form" onSubmit={(event) => { event.preventDefault(); submit(); }}>
      <p class="note">{tool.description}</p>
      {Object.entries(tool.parameters.properties).map(([name, schema]) => (
        <label key={name}>
          <span>{name}{required.has(name) ? "" : " (optional)"}</span>
          <Field name={name} schema={schema} value={values[name] ?? ""} isPicture={tool.image_parameters.includes(name)} handles={handles}
            required={required.has(name)} change={(value) => change({ ...values, [name]: value })} />
          {schema.description && <small>{schema.description}</small>}
        </label>
      ))}
      {drawable.length > 0 && <p class="note">{HINTS[drawable[0]!]}</p>}
      <button type="submit" class="main" disabled={busy}>{busy ? "Running …" : `Run ${tool.name}`}</button>
    </form>
  );
}

const HINTS: Record<Shape, string> = {
  box: "Drag over the picture to draw the box.", boxes: "Drag over the picture to add a box.", point: "Click on the picture to set the point.",
  points: "Click on the picture to add a point.", x: "Click on the picture to set x.", y: "Click on the picture to set y.",
};

interface FieldProperties {
  name: string;
  schema: Parameter;
  value: string;
  isPicture: boolean;
  handles: string[];
  required: boolean;
  change(value: string): void;
}

function Field({ name, schema, value, isPicture, handles, required, change }: FieldProperties) {
  const choices = isPicture ? handles : schema.type === "boolean" ? ["true", "false"] : schema.enum?.map(String);
  if (choices) {
    return (
      <select name={name} value={value} required={required} onChange={(event) => change(event.currentTarget.value)}>
        {!required && <option value="" />}
        {choices.map((choice) => <option key={choice}>{choice}</option>)}
      </select>
    );
  }
  const common = { name, value, required, onInput: (event: { currentTarget: HTMLInputElement }) => change(event.currentTarget.value), autocomplete: "off" };
  if (schema.type === "number" || schema.type === "integer") {
    return <input {...common} type="number" step={schema.type === "integer" ? 1 : "any"} min={schema.minimum} max={schema.maximum} />;
  }
  return <input {...common} placeholder={schema.type === "array" ? "drawn, or JSON" : undefined} />;
}
