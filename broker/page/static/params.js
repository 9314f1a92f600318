// The bandit's params: read, change, preview and roll back, on the admin port.
export async function load() {}
