"""One output folder: may it be used, what is written into it and said of it; knows no Hub and no option of a verb."""
