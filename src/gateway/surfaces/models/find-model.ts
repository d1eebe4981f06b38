import type { AppError } from '../../../lib/errors.ts';
import { toVisibleText } from '../../../lib/visible-text.ts';
import { modelNotFound } from '../../routing/decision-view.ts';
import { createModelNames } from '../../routing/model-order.ts';
import { findNearNames } from '../../routing/near-names.ts';
import type { CallerModel } from './list-models.ts';

const MAX_SHOWN_LENGTH = 256;

/**
 * Finds a model by its id, or by the name of its provider where one model alone has it. Letter case does not count where
 * the result is unique.
 * @throws AppError `model_not_found` with similar ids.
 */
export function getModel(models: readonly CallerModel[], id: string): CallerModel {
  const found = findById(models, id) ?? findByName(models, id);
  if (found === undefined) throw notListed(models, id);
  return found;
}

function findById(models: readonly CallerModel[], id: string): CallerModel | undefined {
  const listed = createModelNames(models.map((model) => model.id)).find(id);
  return models.find((model) => model.id === listed);
}

function findByName(models: readonly CallerModel[], name: string): CallerModel | undefined {
  const listed = createModelNames(models.map((model) => model.name)).find(name);
  const [found, second] = models.filter((model) => model.name === listed);
  return second === undefined ? found : undefined;
}

function notListed(models: readonly CallerModel[], id: string): AppError {
  const shown = JSON.stringify(toVisibleText(id.slice(0, MAX_SHOWN_LENGTH)));
  const nearNames = findNearNames(
    id.slice(0, MAX_SHOWN_LENGTH),
    models.map((model) => model.id),
  );
  return modelNotFound(`The list of your models has no ${shown}.`, nearNames);
}
