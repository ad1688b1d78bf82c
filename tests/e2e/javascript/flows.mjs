// What people do with the JavaScript client, step after step; prints what came of each as one JSON object.
// The namespace is the first argument, the cluster that of $KUBECONFIG.
import * as k8s from '@kubernetes/client-node';
import net from 'node:net';
import { PassThrough, Readable, Writable } from 'node:stream';

const namespace = process.argv[2];
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const results = {};

async function step(name, run) {
  try {
    results[name] = await run();
  } catch (error) {
    results[name] = { failed: String(error.stack ?? error), code: error.code, body: error.body };
  }
}

class Sink extends Writable {
  text = '';
  constructor(wanted) {
    super();
    this.full = new Promise((seen) => { this.seen = () => this.text.includes(wanted) && seen(); });
  }
  _write(chunk, _, done) {
    this.text += chunk;
    this.seen();
    done();
  }
}

const labels = { app: 'p' };
const image = 'localhost/host';
const web = {
  name: 'web', image, command: ['sh', '-c', 'echo hello; exec python3 -m http.server 8080'],
  readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
};
const reader = { name: 'reader', image, command: ['cat'], stdin: true };
const pod = { metadata: { name: 'p', labels }, spec: { terminationGracePeriodSeconds: 1, containers: [web, reader] } };
const watched = [];
let informed = () => {};
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/pods`, () => core.listNamespacedPod({ namespace }));
for (const verb of ['add', 'update', 'delete']) {
  informer.on(verb, (object) => { watched.push(verb); informed(verb, object); });
}

await step('versions', async () => {
  const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
  return { version: (await config.makeApiClient(k8s.VersionApi).getCode()).minor, apps: groups.groups.some((g) => g.name === 'apps') };
});

await step('informer', async () => {
  const ready = new Promise((yes) => {
    informed = (_, object) => object.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') && yes();
  });
  await informer.start();
  const made = await core.createNamespacedPod({ namespace, body: pod });
  await ready;
  return { first: watched[0], updated: watched.includes('update'), date: made.metadata.creationTimestamp instanceof Date, cached: informer.get('p', namespace)?.status.phase };
});

await step('watch', () => new Promise((yes, no) => {
  let request;
  const seen = (type, object) => { yes([type, object.metadata.name]); request?.abort(); };
  new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector: 'metadata.name=p' }, seen, (error) => error && no(error))
    .then((made) => { request = made; }, no);
}));

await step('pages', async () => {
  const names = [];
  let _continue;
  for (const name of ['a', 'b']) await core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels }, data: { name } } });
  do {
    const page = await core.listNamespacedConfigMap({ namespace, limit: 1, labelSelector: 'app=p', _continue });
    names.push(...page.items.map((i) => i.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  return names;
});

await step('patches', async () => {
  const patch = (strategy, body, more = {}) =>
    core.patchNamespacedConfigMap({ namespace, name: 'a', body, ...more }, k8s.setHeaderOptions('Content-Type', strategy));
  await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'add', path: '/data/json', value: '1' }]);
  await patch(k8s.PatchStrategy.MergePatch, { data: { name: null } });
  await patch(k8s.PatchStrategy.StrategicMergePatch, { data: { strategic: '2' } });
  const applied = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { applied: '3' } };
  const now = await patch(k8s.PatchStrategy.ServerSideApply, applied, { fieldManager: 'js' });
  return { data: now.data, applier: now.metadata.managedFields.find((f) => f.operation === 'Apply').manager };
});

await step('conflict', async () => {
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { applied: '4' } };
  const options = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.ServerSideApply);
  try {
    await core.patchNamespacedConfigMap({ namespace, name: 'a', body, fieldManager: 'other' }, options);
  } catch (error) {
    return [error.code, JSON.parse(error.body).details.causes[0].field];
  }
});

await step('refusal', async () => {
  try {
    await core.createNamespacedPod({ namespace, body: { metadata: { name: 'B' }, spec: { containers: [] } } });
  } catch (error) {
    return [error.code, JSON.parse(error.body).reason];
  }
});

await step('any kind', async () => {
  const api = k8s.KubernetesObjectApi.makeApiClient(config);
  const spec = { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [reader] } } };
  const wish = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'd', namespace }, spec };
  await api.create(wish);
  const now = await api.patch({ ...wish, spec: { ...spec, replicas: 2 } }, undefined, undefined, 'js', true, k8s.PatchStrategy.ServerSideApply);
  const listed = await api.list('apps/v1', 'Deployment', namespace);
  await api.delete(wish);
  return [now.spec.replicas, listed.kind, listed.items.length];
});

const run = (command, { stdin = null, out = new Sink(''), tty = false } = {}) => new Promise((yes, no) => {
  new k8s.Exec(config).exec(namespace, 'p', 'web', command, out, new Sink(''), stdin, tty, (status) => yes([out.text, status.status, status.details?.causes?.[0]?.message ?? null])).catch(no);
});
await step('exec', () => run(['echo', 'hello']));
await step('exec that fails', () => run(['sh', '-c', 'exit 3']));
await step('exec that reads', () => run(['cat'], { stdin: Readable.from(['one\n', 'two\n']) }));
await step('exec at a terminal', () => run(['sh', '-c', 'until stty size | grep 100; do sleep 0.1; done; tty'], { out: Object.assign(new Sink(''), { rows: 30, columns: 100 }), tty: true }));

await step('attach', async () => {
  const out = new Sink('\n');
  const input = new PassThrough();
  const socket = await new k8s.Attach(config).attach(namespace, 'p', 'reader', out, null, input, false);
  input.write('anybody?\n');
  await out.full;
  socket.close();
  return out.text;
});

await step('logs', async () => {
  const out = new Sink('\n');
  await new k8s.Log(config).log(namespace, 'p', 'web', out, { follow: true });
  await out.full;
  return out.text.split('\n')[0];
});

await step('port-forward', async () => {
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => forward.portForward(namespace, 'p', [8080], socket, null, socket));
  await new Promise((up) => server.listen(0, '127.0.0.1', up));
  const socket = net.connect(server.address().port, '127.0.0.1');
  socket.write('GET / HTTP/1.0\r\n\r\n');
  const back = await new Promise((got, no) => { socket.once('data', got); socket.once('error', no); });
  socket.destroy();
  server.close();
  return back.toString().split('\r\n')[0];
});

await step('deletion', async () => {
  const gone = new Promise((yes) => { informed = (verb) => verb === 'delete' && yes(); });
  await core.deleteNamespacedPod({ namespace, name: 'p', gracePeriodSeconds: 0 });
  await gone;
  await informer.stop();
  return watched.at(-1);
});

console.log(JSON.stringify(results));
process.exit(0);
