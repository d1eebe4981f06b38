import { AppError } from '../../lib/errors.ts';
import type { Surface } from '../surface.ts';
import { fieldNotAllowed, isSteeringField, type RequestBody } from './request-body.ts';

/** A body as a shared payer sends it. */
export interface AdmittedBody {
  body: RequestBody;
  /** Names of the fields that were left out, in the order of the body. */
  dropped: readonly string[];
}

/**
 * Checks a body that a shared payer (organization or system) pays for: known fields only, no references to objects
 * stored on the shared account, no hosted tools. Fields that can neither cost nor steer are left out; the received body
 * is released then.
 * @param extraFields fields that the operator also allows, and which are passed. Steering fields stay refused.
 * @throws AppError `field_not_allowed` naming the field; `ambiguous_field`; `validation_failed`.
 */
export function admitSharedPayerBody(
  body: RequestBody,
  surface: Surface,
  extraFields: readonly string[],
): AdmittedBody {
  const value = body.takeValue();
  const dropped = body.fieldNames.filter((name) => {
    if (isSteeringField(name)) throw fieldNotAllowed(name);
    if (surface.sharedPayerFields.has(name) || extraFields.includes(name)) return false;
    if (surface.droppedFields.get(name)?.(value[name]) !== true) throw fieldNotAllowed(name);
    return true;
  });
  // A parser hides all but one of several members of a name, and the upstream could read another one.
  if (surface.checkSharedPayerValues(value) !== body.memberCount) {
    throw new AppError(
      'ambiguous_field',
      'An object in the body has two members with the same name. Send each member once.',
    );
  }
  return { body: dropped.length === 0 ? body : body.withoutFields(dropped), dropped };
}
