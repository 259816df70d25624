"""Studies: what every paper shares, from training in lanes to the verdict. See `study.Study`."""
