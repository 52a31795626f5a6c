// A plain script, before anything is painted: what was chosen for this browser earlier holds from the first frame.
const chosen = localStorage.getItem('culvert-theme');
if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
