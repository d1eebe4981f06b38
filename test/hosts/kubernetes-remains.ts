/** Prints the pods in the namespace of a kubeconfig as a JSON list of names. */
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';

const config = new KubeConfig();
config.loadFromFile(process.argv[2] ?? '');
const namespace =
  process.env['TEST_KUBE_NAMESPACE'] ?? config.getContextObject(config.getCurrentContext())?.namespace;
const pods = await config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace: namespace ?? 'default' });
process.stdout.write(JSON.stringify(pods.items.map((pod) => `pod ${pod.metadata?.name ?? ''}`)));
