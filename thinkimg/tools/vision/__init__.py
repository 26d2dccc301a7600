"""Looking at pixels without a model: layout, matching, geometry, masks, regions, sub-plots."""
