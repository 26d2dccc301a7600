// What a program writes on a canvas, and where: `written` has each string's ink box in pixels of the page.
window.written = {};
const plain = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
  const size = this.measureText(text);
  const matrix = this.getTransform();
  const scale = window.devicePixelRatio;
  const corners = [];
  for (const dx of [-size.actualBoundingBoxLeft, size.actualBoundingBoxRight])
    for (const dy of [-size.actualBoundingBoxAscent, size.actualBoundingBoxDescent])
      corners.push(matrix.transformPoint(new DOMPoint(x + dx, y + dy)));
  const place = this.canvas.getBoundingClientRect();
  const xs = corners.map((p) => p.x / scale + (this.canvas.isConnected ? place.left : 0));
  const ys = corners.map((p) => p.y / scale + (this.canvas.isConnected ? place.top : 0));
  window.written[text] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  return plain.call(this, text, x, y, ...rest);
};
// Of strings that are elements of the page.
window.textsOf = (selector) => {
  const found = {};
  const within = (root) => [...root.querySelectorAll("*")].flatMap((node) => (node.shadowRoot ? within(node.shadowRoot) : []))
    .concat([...root.querySelectorAll(selector)]);
  for (const node of within(document)) {
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (node.textContent) found[node.textContent] = [box.left, box.top, box.right, box.bottom];
  }
  return found;
};
