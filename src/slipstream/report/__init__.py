"""Reports: reads run folders, never imports torch."""
