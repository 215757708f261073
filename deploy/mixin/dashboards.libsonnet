// Made by `python -m grafana`; do not edit.
{
  'wgkex-broker.json': import '../../grafana/dashboards/wgkex-broker.json',
  'wgkex-overview.json': import '../../grafana/dashboards/wgkex-overview.json',
  'wgkex-peers.json': import '../../grafana/dashboards/wgkex-peers.json',
  'wgkex-runtime.json': import '../../grafana/dashboards/wgkex-runtime.json',
  'wgkex-worker.json': import '../../grafana/dashboards/wgkex-worker.json',
}
