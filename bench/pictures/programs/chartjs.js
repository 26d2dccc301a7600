// Chart.js. draw(chart, fills, alone): fills[series][category] are colours; alone: each mark in its own.
window.draw = (chart, fills, alone) => {
  window.written = {};
  const ink = chart.dark ? "#e8e8e8" : "#333333";
  const stage = document.getElementById("stage");
  stage.style.background = chart.dark ? "#1e2430" : "#ffffff";
  stage.innerHTML = "";
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = chart.size;
  stage.appendChild(canvas);
  Chart.defaults.font.size = chart.font;
  Chart.defaults.color = ink;
  Chart.defaults.borderColor = chart.dark ? "#444c5c" : "#e2e2e2";
  const pie = chart.kind === "slices", lying = chart.kind === "lying bars";
  const curve = chart.kind === "lines" || chart.kind === "areas";
  const stacked = chart.kind === "stacked" || chart.kind === "areas";
  const datasets = chart.series.map((name, s) => ({
    label: name,
    data: chart.values[s],
    backgroundColor: chart.kind === "areas" ? fills[s][0] : fills[s],
    borderColor: pie ? (chart.dark ? "#1e2430" : "#ffffff") : curve ? chart.colors[s] : undefined,
    borderWidth: pie ? 1 : curve ? 2.5 : 0,
    fill: chart.kind === "areas" ? (s === 0 ? "origin" : "-1") : false,
    pointRadius: chart.kind === "lines" ? (alone ? 4 : 3) : 0,
    pointBorderWidth: 0,
    pointBackgroundColor: chart.kind === "lines" ? fills[s] : undefined,
    categoryPercentage: chart.series.length > 1 ? 0.85 : 1,
    barPercentage: chart.share,
  }));
  const along = {
    title: { display: true, text: chart.category_axis },
    ticks: { autoSkip: false, minRotation: chart.slant ? 45 : 0, maxRotation: chart.slant ? 45 : 0 },
    stacked, grid: { display: false },
  };
  const across = { title: { display: true, text: chart.value_axis }, stacked, beginAtZero: true };
  new Chart(canvas, {
    type: pie ? "pie" : curve ? "line" : "bar",
    data: { labels: chart.categories, datasets },
    options: {
      animation: false, responsive: false, devicePixelRatio: 1, indexAxis: lying ? "y" : "x",
      layout: { padding: chart.font },
      scales: pie ? {} : lying ? { x: across, y: along } : { x: along, y: across },
      plugins: {
        title: { display: true, text: chart.title, font: { size: chart.font * 1.3 } },
        legend: { display: pie || chart.series.length > 1, position: chart.legend },
      },
    },
  });
  return window.written;
};
