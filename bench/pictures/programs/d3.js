// D3. draw(chart, fills, alone): fills[series][category] are colours; alone: each mark in its own.
window.draw = (chart, fills, alone) => {
  const [width, height] = chart.size, font = chart.font, n = chart.categories.length;
  const ink = chart.dark ? "#dddddd" : "#222222", ground = chart.dark ? "#202020" : "#ffffff";
  const pie = chart.kind === "slices", lying = chart.kind === "lying bars";
  const entries = pie ? chart.categories : chart.series.length > 1 ? chart.series : [];
  const side = entries.length && chart.legend === "right" ? 8 * font : 2 * font;
  const box = {
    left: (lying ? 7 : 5.5) * font, right: width - side,
    top: (entries.length && chart.legend === "top" ? 5 : 3.5) * font,
    bottom: height - (chart.slant ? 6.5 : 4.5) * font - (entries.length && chart.legend === "bottom" ? 2 * font : 0),
  };
  const stage = d3.select("#stage").style("background", ground);
  stage.selectAll("*").remove();
  const svg = stage.append("svg").attr("width", width).attr("height", height)
    .style("font", `${font}px sans-serif`).style("display", "block");
  const write = (text, x, y, anchor = "middle", turn = 0) => svg.append("text").text(text).attr("fill", ink)
    .attr("text-anchor", anchor).attr("transform", `translate(${x},${y}) rotate(${turn})`);
  write(chart.title, (box.left + box.right) / 2, 1.8 * font).style("font-size", `${1.25 * font}px`);
  const most = chart.kind === "stacked" || chart.kind === "areas"
    ? d3.max(d3.range(n), (c) => d3.sum(chart.values, (row) => row[c])) : d3.max(chart.values.flat());
  const along = (chart.kind === "lines" || chart.kind === "areas" ? d3.scalePoint() : d3.scaleBand().padding(1 - chart.share))
    .domain(chart.categories).range(lying ? [box.top, box.bottom] : [box.left, box.right]);
  const across = d3.scaleLinear().domain([0, most * 1.05]).range(lying ? [box.left, box.right] : [box.bottom, box.top]);
  const rect = (x, y, w, h, fill) => svg.append("rect").attr("x", x).attr("y", y).attr("width", w).attr("height", h).attr("fill", fill);
  if (pie) {
    const radius = Math.min(box.right - box.left, box.bottom - box.top) / 2;
    const arc = d3.arc().innerRadius(0).outerRadius(radius);
    const g = svg.append("g").attr("transform", `translate(${(box.left + box.right) / 2},${(box.top + box.bottom) / 2})`);
    d3.pie().sort(null)(chart.values[0]).forEach((slice, c) =>
      g.append("path").attr("d", arc(slice)).attr("fill", fills[0][c]).attr("stroke", ground));
  } else {
    const low = svg.append("g").attr("transform", lying ? `translate(${box.left},0)` : `translate(0,${box.bottom})`)
      .call(lying ? d3.axisLeft(along) : d3.axisBottom(along));
    const high = svg.append("g").attr("transform", lying ? `translate(0,${box.bottom})` : `translate(${box.left},0)`)
      .call((lying ? d3.axisBottom(across) : d3.axisLeft(across)).ticks(5));
    for (const g of [low, high]) {
      g.style("font", `${font}px sans-serif`).style("color", ink);
    }
    if (chart.slant) low.selectAll("text").attr("text-anchor", "end").attr("transform", "rotate(-45)").attr("dx", "-0.5em").attr("dy", "0.2em");
    const floor = box.bottom + (chart.slant ? 5.5 : 3.2) * font;
    write(lying ? chart.value_axis : chart.category_axis, (box.left + box.right) / 2, floor);
    write(lying ? chart.category_axis : chart.value_axis, 1.5 * font, (box.top + box.bottom) / 2, "middle", -90);
  }
  const bars = ["bars", "lying bars", "grouped", "stacked"].includes(chart.kind);
  const base = new Array(n).fill(0);
  chart.series.forEach((name, s) => {
    if (bars) chart.categories.forEach((category, c) => {
      const value = chart.values[s][c], start = along(category), thick = along.bandwidth();
      const part = chart.kind === "grouped" ? thick / chart.series.length : thick;
      const offset = chart.kind === "grouped" ? s * part : 0;
      if (lying) rect(across(0), start, across(value) - across(0), thick, fills[s][c]);
      else rect(start + offset, across(base[c] + value), part, across(0) - across(value), fills[s][c]);
      if (chart.kind === "stacked") base[c] += value;
    });
    if (chart.kind === "areas") {
      const shape = d3.area().x((_, c) => along(chart.categories[c])).y0((_, c) => across(base[c])).y1((v, c) => across(base[c] + v));
      svg.append("path").attr("d", shape(chart.values[s])).attr("fill", fills[s][0]);
      chart.values[s].forEach((v, c) => (base[c] += v));
    }
    if (chart.kind === "lines") {
      const line = d3.line().x((_, c) => along(chart.categories[c])).y((v) => across(v));
      svg.append("path").attr("d", line(chart.values[s])).attr("fill", "none").attr("stroke", chart.colors[s]).attr("stroke-width", 2.5);
    }
  });
  if (chart.kind === "lines" && alone) chart.series.forEach((name, s) => chart.values[s].forEach((v, c) =>
    svg.append("circle").attr("cx", along(chart.categories[c])).attr("cy", across(v)).attr("r", 4).attr("fill", fills[s][c])));
  let place = box.left;
  entries.forEach((name, index) => {
    const color = chart.colors[index];
    const x = chart.legend === "right" ? box.right + font : place;
    const y = chart.legend === "right" ? box.top + index * 1.6 * font
      : chart.legend === "top" ? 3 * font : height - 1.2 * font;
    rect(x, y, font, font, color);
    const text = write(name, x + 1.4 * font, y + 0.85 * font, "start");
    place += text.node().getBBox().width + 3 * font;
  });
  return window.textsOf("#stage text");
};
