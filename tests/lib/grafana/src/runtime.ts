// Stands in for @grafana/runtime, of which the conversion of answers needs one name, for exemplars.
export const getDataSourceSrv = () => ({ getInstanceSettings: () => undefined });
