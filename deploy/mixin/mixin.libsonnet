// Monitoring mixin: the alerts, recording rules and dashboards that are in alerts/ and grafana/.
//
// `_config.wgkex` has what depends on the site. Thresholds and windows are in alerts/settings.py: change them there, and run
// `make generated`.

local shipped = import 'rules.json';

{
  _config+:: {
    wgkex+: shipped.config {
      // `jobs` has the `job` of each program in Prometheus, `runbook` the base of each alert's `runbook_url`. These labels
      // are added to each alert.
      alertLabels: {},
    },
  },

  local renamed(expression) = std.foldl(
    function(text, component) std.strReplace(text, shipped.config.jobs[component], $._config.wgkex.jobs[component]),
    std.objectFields(shipped.config.jobs),
    expression,
  ),

  local adapted(rule) = rule { expr: renamed(rule.expr) } + if std.objectHas(rule, 'alert') then {
    labels+: $._config.wgkex.alertLabels,
    annotations+: {
      runbook_url: std.strReplace(rule.annotations.runbook_url, shipped.config.runbook, $._config.wgkex.runbook),
    },
  } else {},

  // The groups with those of their rules that are of a kind: `alert` or `record`.
  local groups(kind) = [
    group
    for group in [
      group { rules: [adapted(rule) for rule in group.rules if std.objectHas(rule, kind)] }
      for group in shipped.groups
    ]
    if std.length(group.rules) > 0
  ],

  prometheusAlerts+:: { groups+: groups('alert') },
  prometheusRules+:: { groups+: groups('record') },
  grafanaDashboards+:: import 'dashboards.libsonnet',
}
