// bokeh. draw(chart, fills, alone): fills[series][category] are colours; alone: each mark in its own.
window.draw = async (chart, fills, alone) => {
  window.written = {};
  const [width, height] = chart.size, n = chart.categories.length;
  const ink = chart.dark ? "#e0e0e0" : "#303030", ground = chart.dark ? "#20262e" : "#ffffff";
  document.getElementById("stage").innerHTML = "";
  document.getElementById("stage").style.background = ground;
  const pie = chart.kind === "slices", lying = chart.kind === "lying bars";
  const factors = new Bokeh.FactorRange({ factors: lying ? [...chart.categories].reverse() : chart.categories });
  const plot = new Bokeh.Plotting.Figure({
    width, height, title: chart.title, toolbar_location: null, background_fill_color: ground, border_fill_color: ground,
    output_backend: "canvas",
    ...(pie ? { x_range: [-1.3, 1.3], y_range: [-1.2, 1.2] } : lying ? { y_range: factors } : { x_range: factors }),
  });
  const size = `${chart.font}px`;
  plot.title.text_font_size = `${Math.round(chart.font * 1.25)}px`;
  plot.title.text_color = ink;
  const [along, across] = lying ? [plot.yaxis, plot.xaxis] : [plot.xaxis, plot.yaxis];
  for (const [axes, label] of [[along, chart.category_axis], [across, chart.value_axis]]) for (const axis of axes) {
    axis.axis_label = pie ? "" : label;
    axis.axis_label_text_font_size = axis.major_label_text_font_size = size;
    axis.axis_label_text_color = axis.major_label_text_color = ink;
    axis.visible = !pie;
  }
  if (chart.slant) for (const axis of along) axis.major_label_orientation = Math.PI / 4;
  if (pie) plot.grid.visible = false;
  const base = new Array(n).fill(0), shown = [];
  const total = chart.values[0].reduce((a, b) => a + b, 0);
  let angle = 0;
  chart.series.forEach((name, s) => {
    const row = chart.values[s], color = chart.colors[s];
    if (pie) row.forEach((value, c) => {
      const end = angle + (2 * Math.PI * value) / total;
      shown.push([chart.categories[c], chart.colors[c], plot.wedge({ x: [0], y: [0], radius: 1, start_angle: angle, end_angle: end, fill_color: fills[0][c], line_color: ground })]);
      angle = end;
    });
    else if (chart.kind === "lines") {
      const glyph = plot.line({ x: chart.categories, y: row, line_color: color, line_width: 2.5 });
      shown.push([name, color, glyph]);
    } else if (chart.kind === "areas") {
      const top = row.map((v, c) => base[c] + v);
      shown.push([name, color, plot.varea({ x: chart.categories, y1: [...base], y2: top, fill_color: fills[s][0] })]);
      row.forEach((v, c) => (base[c] += v));
    } else {
      const many = chart.kind === "grouped" ? chart.series.length : 1, part = chart.share / many;
      const place = chart.categories.map((category) => many > 1 ? [category, (s - (many - 1) / 2) * part] : category);
      const common = { fill_color: fills[s], line_color: null };
      const glyph = lying ? plot.hbar({ y: place, right: row, left: 0, height: part, ...common })
        : plot.vbar({ x: place, top: row.map((v, c) => base[c] + v), bottom: [...base], width: part, ...common });
      if (chart.series.length > 1) shown.push([name, color, glyph]);
      if (chart.kind === "stacked") row.forEach((v, c) => (base[c] += v));
    }
  });
  if (chart.kind === "lines" && alone) chart.series.forEach((name, s) =>
    plot.scatter({ x: chart.categories, y: chart.values[s], size: 8, fill_color: fills[s], line_color: null }));
  if (shown.length > 1) {
    // Keys of marks in colours of their own would be taken for marks: there the legend has its size, and no keys.
    const items = shown.map(([label, , glyph]) => new Bokeh.LegendItem({ label: { value: label }, renderers: alone ? [] : [glyph] }));
    const legend = new Bokeh.Legend({ items, label_text_font_size: size, label_text_color: ink, background_fill_color: ground,
      orientation: chart.legend === "right" ? "vertical" : "horizontal" });
    plot.add_layout(legend, { right: "right", top: "above", bottom: "below" }[chart.legend]);
  }
  const view = await Bokeh.Plotting.show(plot, document.getElementById("stage"));
  await new Promise((done) => setTimeout(done, 120));
  return { ...window.written, ...window.textsOf(".bk-label, .bk-item-label, [class*=label]") };
};
