"""The offline pipeline: from images to a cache of teachers' features, in stages that resume by themselves."""
