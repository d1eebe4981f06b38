export const welcomeTexts = {
  title: 'First steps',
  description:
    'Three steps to your first request on your own key. You can skip them and come back from Settings.',
  progress: (percent: number) => `${String(percent)} percent done`,
  done: 'Done',
  open: 'To do',
  next: 'Next step',
  previous: 'Back',
  skip: 'Skip the first steps',
  finish: 'Finish',
  steps: {
    key: {
      title: 'Add a provider key',
      text: 'Requests are then paid by your own account at the provider, and each answer says so.',
      demo: 'Use the demo key',
      demoText: 'This installation has a demo provider, which accepts a key without an account.',
      link: 'Choose a provider',
    },
    server: {
      title: 'Add an execution server',
      text: 'Code then runs on a machine of your own. You can do this later.',
      demoText:
        'To use this machine for a trial, run this where the installation was started. It then appears here:',
      demoCommand: 'npm run ops -- demo-host',
      link: 'Add a server',
    },
    request: {
      title: 'Send your first request',
      text: 'Make an access token and paste its lines into a shell, an SDK or an agent. The page shows the request as it arrives.',
      link: 'Make an access token',
      run: 'Or run code on your server',
    },
  },
  tierText:
    'Your tier does not include own keys and servers. Requests are answered by the system default: make a token and try it.',
} as const;
