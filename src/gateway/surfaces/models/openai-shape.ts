import type { CallerModel } from './list-models.ts';

/** https://platform.openai.com/docs/api-reference/models/object */
interface OpenAiModel {
  id: string;
  object: 'model';
  created: number;
  owned_by: string;
  x_ops_scope: CallerModel['scope'];
}

export function toOpenAiModel({ id, created, ownedBy, scope }: CallerModel): OpenAiModel {
  return { id, object: 'model', created, owned_by: ownedBy, x_ops_scope: scope };
}

export function toOpenAiList(models: readonly CallerModel[]): { object: 'list'; data: OpenAiModel[] } {
  return { object: 'list', data: models.map(toOpenAiModel) };
}
