// Browsers slow the timers of a page that is not seen, but not those of a worker.
setInterval(() => postMessage(0), 40);
