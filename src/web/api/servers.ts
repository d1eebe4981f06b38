import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { z } from 'zod';
import {
  ServerDeleted,
  ServerTestView,
  ServerView,
  SshKeyPair,
  type ConfirmHostKey,
  type CreateServer,
  type UpdateServer,
} from '../../servers/schema.ts';
import { callApi } from './call.ts';

const BASE = '/api/v1/execution-servers';

export const serversQuery = queryOptions({
  queryKey: ['servers', 'list'],
  queryFn: ({ signal }) => callApi(BASE, z.array(ServerView), { signal }),
});

export const serverQuery = (id: string) =>
  queryOptions({
    queryKey: ['servers', 'one', id],
    queryFn: ({ signal }) => callApi(`${BASE}/${encodeURIComponent(id)}`, ServerView, { signal }),
  });

/** Every change reads all servers again: which one is the default depends on the others. */
function useServerMutation<Input, Output>(mutationFn: (input: Input) => Promise<Output>) {
  const client = useQueryClient();
  return useMutation({ mutationFn, onSettled: () => client.invalidateQueries({ queryKey: ['servers'] }) });
}

export type NewServer = z.input<typeof CreateServer>;
export type ServerChange = z.input<typeof UpdateServer>;

export const useAddServer = () =>
  useServerMutation((body: NewServer) => callApi(BASE, ServerView, { method: 'POST', body }));

export interface ServerEdit {
  /** The version that the change is based on: refused with `version_mismatch` when there is another one. */
  version?: number;
  change: ServerChange;
}

export const useUpdateServer = (id: string) =>
  useServerMutation(({ version, change }: ServerEdit) =>
    callApi(`${BASE}/${id}`, ServerView, {
      method: 'PUT',
      body: change,
      ...(version === undefined ? {} : { ifMatch: String(version) }),
    }),
  );

export const useTestServer = (id: string) =>
  useServerMutation(() => callApi(`${BASE}/${id}/test`, ServerTestView, { method: 'POST' }));

export const useConfirmHostKey = (id: string) =>
  useServerMutation((body: z.input<typeof ConfirmHostKey>) =>
    callApi(`${BASE}/${id}/host-key`, ServerView, { method: 'POST', body }),
  );

/** Reads the list again, but not the server, which its page shows until another one is opened. */
export function useDeleteServer() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => callApi(`${BASE}/${id}`, ServerDeleted, { method: 'DELETE' }),
    onSettled: () => client.invalidateQueries({ queryKey: serversQuery.queryKey }),
  });
}

/** The private key is in the response only. */
export const useMakeKeyPair = () =>
  useMutation({
    mutationFn: () => callApi(`${BASE}/ssh-keypair`, SshKeyPair, { method: 'POST' }),
    gcTime: 0,
  });
