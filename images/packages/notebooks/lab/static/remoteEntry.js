// Says in the lab when the server has to stop, and what keeps it (notebooks/ending.py).
//
// A prebuilt extension of JupyterLab is a module-federation container; one this small needs no
// bundler. `init` is given what JupyterLab shares, `get` a module by the name in package.json.
(() => {
  const NAME = '@mlhub/ending';
  const EVERY = 30_000; // milliseconds
  let shared;

  const use = async name => (await Object.values(shared[name])[0].get())();

  const span = seconds =>
    seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} minutes`;

  const plugin = {
    id: `${NAME}:plugin`,
    description: 'Says when the server has to stop.',
    autoStart: true,
    activate: async app => {
      const { Notification } = await use('@jupyterlab/apputils');
      const { ServerConnection } = await use('@jupyterlab/services');
      const settings = app.serviceManager.serverSettings;
      let shown = ''; // the notification's id
      let dismissed = ''; // what the person has read and closed

      Notification.manager.changed.connect((_, change) => {
        if (change.type === 'removed' && change.notification.id === shown) {
          dismissed = change.notification.options.data.about;
          shown = '';
        }
      });

      const look = async () => {
        // A tab that nobody sees must not keep its server.
        if (document.hidden) return;
        let ending = {};
        try {
          const answer = await ServerConnection.makeRequest(
            `${settings.baseUrl}mlhub/ending`, {}, settings);
          if (answer.ok) ending = await answer.json();
        } catch { return; } // away; asked again
        if (!('seconds' in ending)) {
          if (shown) Notification.dismiss(shown);
          shown = dismissed = '';
          return;
        }
        // Said once more in its last minutes to whoever closed it.
        const about = ending.keep + (ending.seconds < 120);
        // The lab cuts what is longer than 140 characters.
        const message = `This server stops in ${span(ending.seconds)}. ${ending.why} ${ending.keep}`;
        const options = { autoClose: false, data: { about } };
        if (shown) Notification.update({ id: shown, message, ...options });
        else if (dismissed !== about) shown = Notification.emit(message, 'warning', options);
      };
      setInterval(look, EVERY);
      await look();
    },
  };

  const containers = (window._JUPYTERLAB = window._JUPYTERLAB || {});
  containers[NAME] = {
    init: scope => { shared = scope; },
    get: async module => {
      if (module !== './extension') throw new Error(`${NAME} has no module ${module}`);
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
