// A table of HTML with a bar in each row, in place of lying bars.
window.draw = (chart, fills, alone) => {
  const ink = chart.dark ? "#e8e8e8" : "#202124", ground = chart.dark ? "#17202a" : "#ffffff";
  const stage = document.getElementById("stage");
  stage.style.background = ground;
  const most = Math.max(...chart.values[0]);
  const gap = chart.share > 0.9 ? 2 : 8;
  const thick = Math.min(4 * chart.font, (chart.size[1] - 6 * chart.font) / chart.categories.length - gap);
  const rows = chart.categories.map((name, c) => `<tr><td>${name}</td><td class="bar"><div style="height:${thick}px;
    width:${(chart.values[0][c] / most) * chart.size[0] * 0.6}px;background:${fills[0][c]}"></div></td></tr>`);
  stage.innerHTML = `<style>table{border-collapse:collapse;margin:${chart.font}px;font:${chart.font}px sans-serif;color:${ink}}
    td,th{padding:${gap / 2}px ${chart.font}px;text-align:left;font-weight:normal}caption{font-size:1.3em;padding:4px;caption-side:top}
    th{font-weight:bold}td.bar{padding-left:0;border-left:1px solid ${ink}}</style><table><caption>${chart.title}</caption>
    <tr><th>${chart.category_axis}</th><th>${chart.value_axis}</th></tr>${rows.join("")}</table>`;
  return window.textsOf("caption, th, td:not(.bar)");
};
