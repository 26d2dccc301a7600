# ggplot2: Rscript ggplot2.R CHARTS.json FOLDER. Each chart twice, FOLDER/N-0.pdf as seen, FOLDER/N-1.pdf with each mark
# in its own colour. A point of the page is a pixel.
suppressMessages(library(ggplot2))
arguments <- commandArgs(trailingOnly = TRUE)
jobs <- jsonlite::fromJSON(arguments[1], simplifyVector = FALSE)
flat <- function(rows) unlist(lapply(rows, unlist))

draw <- function(chart, fills, alone) {
  names <- unlist(chart$categories); series <- unlist(chart$series); n <- length(names)
  colors <- unlist(chart$colors)
  data <- data.frame(
    category = factor(rep(names, length(series)), levels = names),
    series = factor(rep(series, each = n), levels = series),
    value = flat(chart$values), fill = flat(fills), at = rep(seq_len(n), length(series)))
  # Colours of their own need a scale of their own: ids of marks, while the legend keeps the chart's colours.
  data$id <- if (alone && chart$kind != "areas") paste0("mark", seq_len(nrow(data)))
             else if (chart$kind == "slices") as.character(data$category) else as.character(data$series)
  entries <- if (chart$kind == "slices") names else series
  values <- setNames(colors[seq_along(entries)], entries)
  if (alone) {
    if (chart$kind == "areas") own <- setNames(vapply(fills, function(row) row[[1]], ""), series)
    else own <- setNames(data$fill, data$id)
  }
  scale <- scale_fill_manual(values = if (alone) c(values, own) else values, breaks = entries, limits = if (alone) c(entries, setdiff(names(own), entries)) else entries)
  if (alone && chart$kind == "areas") scale <- scale_fill_manual(values = own, breaks = entries)
  ground <- if (chart$dark) "#262626" else "white"; ink <- if (chart$dark) "#e6e6e6" else "#333333"
  look <- if (chart$dark) theme_dark(base_size = chart$font) else if (chart$share > 0.9) theme_gray(base_size = chart$font) else theme_minimal(base_size = chart$font)
  ticks <- element_text(colour = ink, size = chart$font)
  shown <- if (chart$kind == "slices" || length(series) > 1) chart$legend else "none"
  base <- labs(title = chart$title, x = chart$category_axis, y = chart$value_axis, fill = NULL, colour = NULL)
  order <- if (chart$kind == "stacked" || chart$kind == "areas") position_stack(reverse = TRUE) else position_dodge(chart$share)
  plot <- switch(chart$kind,
    "lines" = ggplot(data, aes(category, value, group = series)) + geom_line(aes(colour = series), linewidth = 1) +
      scale_colour_manual(values = values) + expand_limits(y = 0),
    "areas" = ggplot(data, aes(at, value, fill = series, group = series)) + geom_area(position = order) +
      scale_x_continuous(breaks = seq_len(n), labels = names),
    "slices" = ggplot(data, aes(1, value, fill = id, group = category)) + geom_col(width = 1, colour = ground, position = position_stack(reverse = TRUE)) + coord_polar(theta = "y"),
    ggplot(data, aes(category, value, fill = id, group = series)) + geom_col(width = if (chart$kind == "stacked") chart$share else chart$share, position = order))
  if (chart$kind == "lines" && alone) plot <- plot + geom_point(aes(fill = id), shape = 21, size = 3, stroke = 0, show.legend = FALSE) + scale
  else if (chart$kind != "lines") plot <- plot + scale
  if (chart$kind == "lying bars") plot <- plot + coord_flip()
  plot <- plot + base + look + theme(legend.position = shown, plot.background = element_rect(fill = ground, colour = NA),
    text = element_text(colour = ink), axis.text = ticks, legend.text = ticks, plot.title = element_text(size = 1.25 * chart$font, hjust = if (chart$share > 0.9) 0 else 0.5),
    plot.margin = margin(chart$font, chart$font, chart$font, chart$font))
  if (chart$kind == "slices") plot <- plot + theme(axis.text = element_blank(), axis.title = element_blank(), axis.ticks = element_blank(), panel.grid = element_blank(), panel.border = element_blank())
  if (chart$slant) plot <- plot + theme(axis.text.x = element_text(angle = 45, hjust = 1))
  plot
}

for (number in seq_along(jobs)) for (alone in c(FALSE, TRUE)) {
  job <- jobs[[number]]
  size <- unlist(job$chart$size) / 72
  pdf(sprintf("%s/%d-%d.pdf", arguments[2], number - 1, as.integer(alone)), width = size[1], height = size[2], useKerning = FALSE)
  print(suppressWarnings(draw(job$chart, if (alone) job$own else job$fills, alone)))
  invisible(dev.off())
}
