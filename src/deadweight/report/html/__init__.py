"""The HTML report: one file that needs nothing else, with a treemap of every byte.

Tables are HTML from the report model, and can be read without JavaScript; the treemap and what goes with it are drawn
by the page from the tree (`deadweight.report.tree_model`), which is embedded compressed. assets/ has the page's parts
as they are: nothing is built, and d3-hierarchy.min.js is the file of that name of d3-hierarchy 3.1.3 from npm (ISC
licence, beside it).
"""
