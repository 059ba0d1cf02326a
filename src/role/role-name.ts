/** What a process can be; `oci-node --role=` takes several. */
export const roleNames = ["gateway", "scheduler", "worker"] as const;
export type RoleName = (typeof roleNames)[number];
