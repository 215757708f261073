// Grafana's own types of a dashboard in a file. scripts/check-dashboard-types puts the dashboards behind this as
// literals, and the TypeScript compiler checks them: a wrong value, a wrong type, a missing or an unknown field of a
// panel's options is an error.

import type {
  AnnotationQuery,
  Dashboard,
  DataQuery,
  DataSourceRef,
  DataTransformerConfig,
  FieldConfig,
  FieldConfigSource,
  GraphFieldConfig,
  Panel,
  RowPanel,
  TableFieldOptions,
  VariableModel,
} from '@grafana/schema';
import type {
  FieldConfig as HeatmapFieldConfig,
  Options as HeatmapOptions,
} from './node_modules/@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as StatOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as TimelineFieldConfig,
  Options as TimelineOptions,
} from './node_modules/@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type { Options as TableOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeriesOptions } from './node_modules/@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// A type as JSON has it: an enumeration's values in place of its members.
type Plain<T> = 0 extends 1 & T
  ? T
  : unknown extends T
    ? T
    : T extends string
      ? `${T}`
      : T extends number
        ? `${T}` extends `${infer N extends number}`
          ? N
          : T
        : T extends readonly (infer U)[]
          ? Plain<U>[]
          : T extends object
            ? { [K in keyof T]: Plain<T[K]> }
            : T;

// The package has the types of panels, but none for the queries of Prometheus.
interface PrometheusQuery extends Omit<DataQuery, 'datasource'> {
  datasource: DataSourceRef;
  editorMode: 'code';
  exemplar: boolean;
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  interval?: string;
  legendFormat: string;
  range: boolean;
}

// Without the index signature that would let any field pass.
interface Defaults<Custom> extends Omit<Plain<FieldConfig>, 'custom'> {
  custom?: Plain<Custom>;
}

interface Drawn<Type extends string, Options, Custom>
  extends Omit<Plain<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations' | 'title' | 'description'> {
  type: Type;
  title: string;
  description: string;
  options: Plain<Options>;
  fieldConfig: Omit<Plain<FieldConfigSource>, 'defaults'> & { defaults: Defaults<Custom> };
  targets?: PrometheusQuery[];
  transformations?: Plain<DataTransformerConfig>[];
}

// The list of alerts has no type in the package. These are the fields that Grafana 11 writes.
interface AlertListOptions {
  alertInstanceLabelFilter: string;
  alertName: string;
  dashboardAlerts: boolean;
  groupBy: string[];
  groupMode: 'default' | 'custom';
  maxItems: number;
  showInactiveAlerts: boolean;
  sortOrder: 1 | 2 | 3 | 4 | 5;
  stateFilter: Record<'error' | 'firing' | 'noData' | 'normal' | 'pending', boolean>;
  viewMode: 'list' | 'stat';
}

type AnyPanel =
  | (Omit<Plain<RowPanel>, 'panels'> & { panels: AnyPanel[] })
  | Drawn<'stat', StatOptions, Record<string, never>>
  | Drawn<'timeseries', TimeSeriesOptions, GraphFieldConfig>
  | Drawn<'heatmap', HeatmapOptions, HeatmapFieldConfig>
  | Drawn<'table', TableOptions, Partial<TableFieldOptions>>
  | Drawn<'state-timeline', TimelineOptions, TimelineFieldConfig>
  | Drawn<'alertlist', AlertListOptions, Record<string, never>>;

// The fields of an annotation from Prometheus, beside those that all annotations have.
type Annotation = Plain<AnnotationQuery> & {
  expr: string;
  step: string;
  tagKeys: string;
  textFormat: string;
  titleFormat: string;
};

export interface File extends Omit<Plain<Dashboard>, 'panels' | 'annotations' | 'templating'> {
  annotations: { list: Annotation[] };
  panels: AnyPanel[];
  schemaVersion: 39;
  templating: { list: Plain<VariableModel>[] };
  title: string;
  uid: string;
}
