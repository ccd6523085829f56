"""Runs as one page for people who were not there: a file without links, which any browser opens.

    rows        one line for each input, whatever the command of the run
    tables      the numbers of a run as named tables, computed again from its records; also what `export` writes
    facts       question, settings, versions, open inputs, seconds and certificates of a run, in words
    origin      model and data found again where the run found them, or why not
    pictures    inputs as images, and images as text
    drawing     curves, brackets and the graph of a network as SVG
    run_page    all of it about one run
    render      several runs as HTML

Everything in a folder of a run is somebody else's: each text is escaped, and the page may load nothing.
"""
