// The trajectory browser of report.html. Everything shown comes from two JSON blocks and is set as text, never as markup.
"use strict";
(() => {
  const { sources, trajectories, pieces } = JSON.parse(document.getElementById("data").textContent);
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const filters = document.getElementById("filters");
  const list = document.getElementById("list");
  const detail = document.getElementById("detail");
  const browser = document.getElementById("browser");
  const lightbox = document.getElementById("lightbox");
  const byId = new Map(trajectories.map((one) => [one.id, one]));
  const rows = new Map();
  const narrow = matchMedia("(max-width: 820px)");
  const ROLES = { system: "System", user: "Question", assistant: "Model", tool: "Tool" };
  const ENDED = {
    answered: "Answered", rounds: "Stopped: too many rounds", tokens: "Stopped: context full",
    refused: "Refused by the endpoint", time: "Stopped: out of time", infrastructure: "Ended by the infrastructure", running: "Not finished",
  };
  const NOTHING = { boxes: [], points: [] };
  let shown = [];
  let current = null;
  let withTokens = false;

  // ---- building blocks ----------------------------------------------------------------------------------------

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function draw(tag, properties, title) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
    if (title) {
      const words = document.createElementNS("http://www.w3.org/2000/svg", "title");
      words.textContent = title;
      element.append(words);
    }
    return element;
  }

  const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1).replace(/\n\s*/g, " "));
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function seconds(value) {
    if (value === null || value === undefined) return "";
    if (value < 0.001) return "< 1 ms";
    return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
  }

  // ---- what a trajectory is filtered by --------------------------------------------------------------------------

  function blocksOf(one) {
    return one.turns.flatMap((turn) => turn.blocks);
  }

  for (const one of trajectories) {
    const blocks = blocksOf(one);
    const results = blocks.filter((block) => block.type === "tool_result");
    one.tools = [...new Set(results.map((block) => block.name))];
    one.calls = results.length;
    one.failed = one.status === "infrastructure" || results.some((block) => block.error);
    one.kind = String(one.meta.kind ?? "");
    one.outcome = one.correct === true ? "right" : one.correct === false ? "wrong" : "open";
    one.questionId = one.meta.question_id ?? null;
    one.haystack = [
      one.id, one.question, one.reference, one.answer, ...blocks.map((block) => block.text ?? pretty(block.arguments ?? "")),
    ].join("\n").toLowerCase();
  }

  function sign(one) {
    const [mark, word] = { right: ["✓", "right"], wrong: ["✗", "wrong"], open: ["–", "not scored"] }[one.outcome];
    return make("span", { class: `sign ${one.outcome}`, role: "img", "aria-label": word }, mark);
  }

  function place(one) {
    return sources[one.source].label + (one.step === null ? "" : `, step ${one.step}`);
  }

  function fillSelect(name, values) {
    for (const [value, label] of values) filters.elements[name].append(make("option", { value }, label));
  }

  function offerSteps() {
    const chosen = filters.elements.source.value;
    const among = trajectories.filter((one) => one.step !== null && (chosen === "" || one.source === Number(chosen)));
    const steps = [...new Set(among.map((one) => one.step))].sort((a, b) => a - b);
    const select = filters.elements.step;
    const before = select.value;
    while (select.options.length > 1) select.remove(1);
    fillSelect("step", steps.map((step) => [step, `Step ${step}`]));
    select.value = steps.map(String).includes(before) ? before : "";
    select.disabled = steps.length === 0;
  }

  function matches(one, wanted) {
    return (
      (wanted.source === "" || one.source === Number(wanted.source)) &&
      (wanted.step === "" || one.step === Number(wanted.step)) &&
      (wanted.kind === "" || one.kind === wanted.kind) &&
      (wanted.outcome === "" || one.outcome === wanted.outcome) &&
      (wanted.tool === "" || (wanted.tool === "-" ? one.calls === 0 : one.tools.includes(wanted.tool))) &&
      (wanted.error === "" || one.failed === (wanted.error === "any")) &&
      (wanted.text === "" || one.haystack.includes(wanted.text))
    );
  }

  // ---- list ---------------------------------------------------------------------------------------------------------

  function row(one) {
    if (!rows.has(one.id)) {
      const tools = one.calls ? `${one.tools.join(", ")} (${one.calls})` : "no tool";
      rows.set(one.id, make("li", {},
        make("a", { href: `#${encodeURIComponent(one.id)}` }, sign(one),
          make("span", {},
            make("span", { class: "question" }, one.question),
            make("span", { class: "under", style: "display: block" }, `${one.answer === null ? "no answer" : short(one.answer, 24)} · ${tools}`),
            make("span", { class: "under", style: "display: block" }, place(one))))));
    }
    return rows.get(one.id);
  }

  function showList() {
    const data = Object.fromEntries(["text", "source", "step", "kind", "outcome", "tool", "error"].map(
      (name) => [name, filters.elements[name].value]));
    data.text = data.text.trim().toLowerCase();
    shown = trajectories.filter((one) => matches(one, data));
    list.replaceChildren(...shown.map(row));
    document.getElementById("count").textContent = shown.length === trajectories.length
      ? `${shown.length.toLocaleString("en")} trajectories`
      : `${shown.length.toLocaleString("en")} of ${trajectories.length.toLocaleString("en")} match`;
    markCurrent();
  }

  function markCurrent() {
    for (const link of list.querySelectorAll("a[aria-current]")) link.removeAttribute("aria-current");
    const link = current && shown.includes(current) ? row(current).firstChild : null;
    if (link) link.setAttribute("aria-current", "true");
    return link;
  }

  // ---- pictures -----------------------------------------------------------------------------------------------------

  function frame(image, overlay, asked, width) {
    const picture = make("img", { src: pictures[image.sha], alt: "", width: image.width, height: image.height, decoding: "async" });
    const shapes = [];
    const layer = draw("svg", { viewBox: `0 0 ${image.width} ${image.height}`, "aria-hidden": "true" });
    const x = (percent) => (percent * image.width) / 100;
    const y = (percent) => (percent * image.height) / 100;
    const box = ([x1, y1, x2, y2, label], kind) => draw("rect", {
      class: kind, x: x(Math.min(x1, x2)), y: y(Math.min(y1, y2)), width: x(Math.abs(x2 - x1)), height: y(Math.abs(y2 - y1)),
    }, label);
    for (const one of asked) layer.append(box(one, "box asked"));
    for (const one of overlay.boxes) shapes.push(box(one, "box"));
    for (const [px, py, label] of overlay.points) {
      shapes.push(draw("circle", { class: "point", cx: x(px), cy: y(py), r: Math.max(image.width, image.height) * 0.014 }, label));
    }
    layer.append(...shapes);
    const element = make("button", { type: "button", class: "frame", style: width ? `width: ${width}px` : null }, picture);
    if (layer.childNodes.length) element.append(layer);
    return { element, shapes };
  }

  function figure(one, handle, caption, overlay = null, asked = []) {
    const image = one.images[handle];
    if (!image || !pictures[image.sha]) {
      return make("figure", { class: "picture" }, make("div", { class: "gone" }, "This picture was not kept"), make("figcaption", {}, handle));
    }
    // Small crops larger, big pictures smaller; what was only looked at smaller than what is new.
    const scale = Math.min(3, (overlay ? 320 : 420) / Math.max(image.width, image.height * 1.2));
    const { element, shapes } = frame(image, overlay ?? NOTHING, asked, Math.max(24, Math.round(image.width * scale)));
    element.setAttribute("aria-label", `${handle}, ${caption || "picture"}, ${image.width} by ${image.height} pixels; enlarge`);
    element.addEventListener("click", () => enlarge(image, overlay, asked, handle));
    const words = [handle, caption, `${image.width} × ${image.height}`].filter(Boolean).join(" · ");
    const result = make("figure", { class: "picture" }, element, make("figcaption", {}, words));
    const names = overlay ? [...overlay.boxes.map((box) => box[4]), ...overlay.points.map((point) => point[2])] : [];
    if (names.some(Boolean)) {
      const chips = names.map((name, number) => {
        const light = (on) => () => shapes[number].classList.toggle("lit", on);
        return make("li", { tabindex: "0", onmouseenter: light(true), onmouseleave: light(false), onfocus: light(true), onblur: light(false) }, name || "(no name)");
      });
      return make("div", { class: "pictures" }, result, make("ul", { class: "found", "aria-label": `Found in ${handle}` }, ...chips));
    }
    return result;
  }

  function enlarge(image, overlay, asked, handle) {
    const room = Math.min(innerWidth * 0.96 - 40, (innerHeight * 0.96 - 60) * (image.width / image.height), 1320);
    const { element } = frame(image, overlay ?? NOTHING, asked, Math.round(Math.max(room, 100)));
    element.setAttribute("aria-label", `Close ${handle}`);
    element.addEventListener("click", () => lightbox.close());
    lightbox.replaceChildren(make("div", { class: "picture" }, element));
    lightbox.showModal();
  }

  // ---- one trajectory ---------------------------------------------------------------------------------------------------

  // What a model wrote beside its calls: the `thought` of the original's JSON, or the text around <tool_call> blocks.
  function thoughtOf(text) {
    try {
      const parsed = JSON.parse(text);
      if (parsed && typeof parsed === "object" && typeof parsed.thought === "string") return parsed.thought;
    } catch { /* not JSON */ }
    const partial = /^\s*\{\s*"thought"\s*:\s*("(?:[^"\\]|\\.)*")/.exec(text);
    if (partial) { try { return JSON.parse(partial[1]); } catch { /* keep the text */ } }
    return text.replace(/<tool_call>[\s\S]*?(<\/tool_call>|$)/g, "").trim();
  }

  const isBox = (value) => Array.isArray(value) && value.length === 4 && value.every((number) => Number.isFinite(number));

  function askedBoxes(call) {
    const values = Object.entries(call?.arguments ?? {}).filter(([name]) => /^(box|boxes|region)$/.test(name)).map(([, value]) => value);
    return values.flatMap((value) => (isBox(value) ? [value] : Array.isArray(value) ? value.filter(isBox) : [])).map((box) => [...box, "asked for"]);
  }

  function callBlock(block) {
    const terms = Object.entries(block.arguments).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, pretty(value))]);
    return make("div", { class: "call" }, make("span", { class: "name" }, block.name), terms.length ? make("dl", {}, ...terms) : null);
  }

  function resultBlock(one, block, calls) {
    const call = calls.get(block.call_id);
    const values = Object.values(call?.arguments ?? {});
    const looked = call?.arguments?.image in one.images ? call.arguments.image : values.find((value) => typeof value === "string" && value in one.images);
    const asked = askedBoxes(call);
    const drawn = block.overlay.boxes.length + block.overlay.points.length + asked.length > 0;
    const size = Object.keys(block.data ?? {}).length;
    return make("div", { class: block.error ? "result failed" : "result" },
      make("header", {}, make("b", {}, block.name),
        block.cached ? make("span", { class: "badge" }, "from the cache") : make("span", { class: "badge" }, seconds(block.seconds)),
        block.error ? make("span", { class: "badge error" }, block.error.replaceAll("_", " ")) : null),
      block.text ? make("div", { class: "text", tabindex: block.text.length > 600 ? "0" : null }, block.text) : null,
      drawn && looked ? figure(one, looked, block.overlay.boxes.length + block.overlay.points.length ? "what it found" : "where it looked", block.overlay, asked) : null,
      size ? make("details", { class: "raw" }, make("summary", {}, "Result as data"), make("pre", {}, JSON.stringify(block.data, null, 2))) : null);
  }

  function textBlock(turn, block) {
    if (turn.role === "system") return [make("details", { class: "raw" }, make("summary", {}, "Instructions and tool schemas"), make("pre", {}, block.text))];
    if (turn.role !== "assistant") return [make("p", {}, block.text)];
    const thought = thoughtOf(block.text);
    const verbatim = thought === block.text.trim() ? null : make("details", { class: "raw" }, make("summary", {}, "As the model wrote it"), make("pre", {}, block.text));
    return [thought ? make("p", {}, thought) : null, verbatim];
  }

  function tokenView(turn) {
    if (!turn.tokens || !turn.tokens.length) return null;
    const chips = [];
    for (let at = 0; at < turn.tokens.length; at += 1) {
      const token = turn.tokens[at];
      const own = turn.mask[at] === "1";
      let run = 1;
      while (!own && turn.tokens[at + run] === token && turn.mask[at + run] !== "1") run += 1;
      const logprob = own && turn.logprobs ? turn.logprobs[at] : null;
      const name = (pieces[token] ?? String(token)).replaceAll("\n", "⏎");
      const title = `token ${token}` + (logprob === null ? "" : `, log-probability ${logprob.toFixed(3)}, probability ${(100 * Math.exp(logprob)).toFixed(1)} %`);
      const doubt = logprob === null ? 0 : Math.round(70 * (1 - Math.exp(logprob)));
      chips.push(make("span", { class: own ? "own" : null, title, style: own ? `--doubt: ${doubt}` : null }, run > 2 ? `${name} × ${run}` : name));
      if (run > 2) at += run - 1;
    }
    const own = [...turn.mask].filter((flag) => flag === "1").length;
    const sum = turn.logprobs ? turn.logprobs.reduce((total, value) => total + (value ?? 0), 0) : null;
    const words = `${plural(turn.tokens.length, "token")}, ${own} the model's own` + (own && sum !== null ? `, log-probability ${sum.toFixed(2)}` : "");
    return make("div", { class: "token-view" }, make("p", { class: "note" }, words), make("div", { class: "tokens" }, ...chips));
  }

  function turnElement(one, turn, calls) {
    const said = make("div", { class: "said" });
    let gallery = null;
    let result = null; // pictures that follow a result are its own
    for (const block of turn.blocks) {
      if (block.type === "image") {
        if (!gallery) {
          gallery = make("div", { class: "pictures" });
          if (result) result.insertBefore(gallery, result.querySelector(":scope > details"));
          else said.append(gallery);
        }
        gallery.append(figure(one, block.handle, turn.role === "user" ? "the picture" : "returned"));
        continue;
      }
      gallery = null;
      if (block.type === "text") said.append(...textBlock(turn, block).filter(Boolean));
      else if (block.type === "tool_call") said.append(callBlock(block));
      else said.append((result = resultBlock(one, block, calls)));
    }
    if (turn.finish === "length") said.append(make("p", {}, make("span", { class: "badge warn" }, "cut off by the token limit")));
    if (withTokens) said.append(tokenView(turn) ?? make("p", { class: "note" }, "No tokens recorded for this turn."));
    const time = turn.seconds ? seconds(turn.seconds) : "";
    return make("li", { class: `turn ${turn.role}` }, make("div", { class: "who" }, make("b", {}, ROLES[turn.role]), time), said);
  }

  function links(title, others, label) {
    if (!others.length) return null;
    return make("div", { class: "others" }, make("h4", {}, title), make("ul", {}, ...others.map((other) => make("li", {},
      make("a", { href: `#${encodeURIComponent(other.id)}` }, sign(other), make("span", {}, label(other)))))));
  }

  function showDetail(one) {
    const calls = new Map(blocksOf(one).filter((block) => block.type === "tool_call").map((block) => [block.id, block]));
    const rewards = Object.entries(one.rewards);
    const fact = (name, value, kind) => [make("dt", {}, name), make("dd", { class: kind }, value)];
    const facts = [
      fact("Answer", one.answer === null ? "none" : one.answer, one.outcome),
      fact("Reference", one.reference ?? "–"),
      ...rewards.map(([name, value]) => fact(rewards.length === 1 ? "Reward" : `Reward, ${name}`, value === null ? "–" : String(Number(value.toFixed(3))), "figure")),
      fact("Ended", ENDED[one.status] ?? one.status, "figure"),
      fact("Tool calls", String(one.calls), "figure"),
      ...(one.seconds ? [fact("Time", seconds(one.seconds), "figure")] : []),
    ].map(([term, value]) => make("div", {}, term, value));
    const same = trajectories.filter((other) => other !== one && one.questionId !== null && other.questionId === one.questionId);
    const mode = (other) => sources[other.source].mode;
    const group = same.filter((other) => other.source === one.source && other.step === one.step);
    const elsewhere = same.filter((other) => !group.includes(other) && mode(other) !== "training");
    const modes = new Set([mode(one), ...sources.map((source) => source.mode).filter((name) => name !== "training")]);
    const inWords = { examples: "an example", ...Object.fromEntries(sources.filter((source) => source.changed).map((source) => [source.mode, source.changed])) };
    const brief = (other) => (other.answer === null ? "no answer" : short(other.answer, 40));
    const meta = Object.entries(one.meta).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, pretty(value))]);
    const tokens = make("button", { type: "button", "aria-pressed": String(withTokens), onclick: toggleTokens }, withTokens ? "Hide tokens" : "Tokens");
    detail.replaceChildren(...[
      make("div", { class: "top" }, make("span", {}, [place(one), one.kind].filter(Boolean).join(" · ")),
        make("nav", { "aria-label": "Trajectory" }, make("button", { type: "button", class: "back", onclick: close }, "Back to the list"), tokens)),
      make("h3", { tabindex: "-1" }, one.question),
      make("dl", { class: "answers" }, ...facts),
      ...[...modes].map((name) => links(`The same question, ${inWords[name] ?? `${name} answers`}`,
        elsewhere.filter((other) => mode(other) === name), (other) => `${sources[other.source].model}: ${brief(other)}`)),
      links("The same group of rollouts", group, brief),
      make("ol", { class: "turns" }, ...one.turns.map((turn) => turnElement(one, turn, calls))),
      make("details", { class: "meta" }, make("summary", {}, "Record"), make("dl", {}, make("dt", {}, "id"), make("dd", {}, one.id), ...meta)),
    ].filter(Boolean));
  }

  function toggleTokens() {
    withTokens = !withTokens;
    if (current) showDetail(current);
    detail.querySelector("[aria-pressed]")?.focus();
  }

  // ---- moving about ------------------------------------------------------------------------------------------------------

  function open(one, { focus = false, scroll = false } = {}) {
    current = one;
    browser.classList.add("reading");
    showDetail(one);
    const link = markCurrent();
    if (link && !narrow.matches) {
      const [top, bottom] = [link.offsetTop - list.offsetTop, link.offsetTop - list.offsetTop + link.offsetHeight];
      if (top < list.scrollTop) list.scrollTop = top;
      else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    }
    if (scroll) (narrow.matches ? detail : document.getElementById("trajectories")).scrollIntoView({ behavior: "instant" });
    else if (detail.getBoundingClientRect().top < 0) detail.scrollIntoView({ behavior: "instant" });
    if (focus) detail.querySelector("h3").focus({ preventScroll: true });
  }

  function close() {
    const last = current;
    browser.classList.remove("reading");
    history.pushState(null, "", "#trajectories");
    if (last && shown.includes(last)) {
      row(last).scrollIntoView({ block: "center", behavior: "instant" });
      row(last).firstChild.focus({ preventScroll: true });
    }
  }

  function followHash(first) {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* an id with a bare % */ }
    const one = byId.get(id);
    if (one) {
      if (!shown.includes(one)) { filters.reset(); offerSteps(); showList(); }
      open(one, { focus: !first, scroll: first || narrow.matches });
    } else {
      browser.classList.remove("reading");
    }
  }

  function step(by) {
    if (!shown.length) return;
    const at = shown.indexOf(current);
    const next = shown[at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by))];
    history.replaceState(null, "", `#${encodeURIComponent(next.id)}`);
    open(next, { scroll: detail.getBoundingClientRect().top > innerHeight * 0.7 });
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || lightbox.open) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const actions = {
      j: () => step(1),
      k: () => step(-1),
      t: toggleTokens,
      "/": () => filters.elements.text.focus(),
      Escape: () => browser.classList.contains("reading") && narrow.matches && close(),
      Enter: () => {
        if (event.target !== document.body || !current) return false;
        open(current, { focus: true, scroll: true });
        return true;
      },
    };
    if (actions[event.key] && actions[event.key]() !== false) event.preventDefault();
  }

  fillSelect("source", sources.flatMap((source, number) => source.shown
    ? [[number, `${source.label} (${source.shown.toLocaleString("en")}${source.shown < source.total ? ` of ${source.total.toLocaleString("en")}` : ""})`]] : []));
  fillSelect("kind", [...new Set(trajectories.map((one) => one.kind))].filter(Boolean).sort().map((kind) => [kind, kind]));
  fillSelect("tool", [...new Set(trajectories.flatMap((one) => one.tools))].sort().map((tool) => [tool, tool]));
  filters.addEventListener("input", (event) => { if (event.target.name === "source") offerSteps(); showList(); });
  filters.addEventListener("reset", () => setTimeout(() => { offerSteps(); showList(); }));
  filters.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => followHash(false));
  addEventListener("keydown", onKey);
  offerSteps();
  showList();
  followHash(true);
  if (!current) {
    if (trajectories.length && !narrow.matches) { current = shown[0]; showDetail(current); markCurrent(); }
    else detail.replaceChildren(make("p", { class: "empty" }, trajectories.length ? "Choose a trajectory." : "This run has no trajectories."));
  }
})();
