"""Every surface crossed with every dialect of the paper market, feature by feature, over HTTP."""
